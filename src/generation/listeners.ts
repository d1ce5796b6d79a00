/**
 * A list of listeners: figures, metrics and traces learn what this process did. A listener works in memory. An error in a
 * listener harms neither the work nor the other listeners.
 */
export interface Listeners<T> {
  /** @returns the way to stop listening */
  listen(listener: (news: T) => void): () => void;
  tell(news: T): void;
}

export function createListeners<T>(onError: (error: unknown) => void): Listeners<T> {
  const listeners = new Set<(news: T) => void>();
  return {
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    tell(news) {
      for (const listener of listeners) {
        try {
          listener(news);
        } catch (error) {
          onError(error);
        }
      }
    },
  };
}
