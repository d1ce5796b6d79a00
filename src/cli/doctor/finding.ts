/** What the doctor says about one thing it looked at. */
export interface Finding {
  readonly level: 'ok' | 'warning' | 'error';
  /** What was looked at. */
  readonly about: string;
  /** What is, and for a warning or an error what to do. One line. */
  readonly message: string;
}

export const ok = (about: string, message: string): Finding => ({ level: 'ok', about, message });
export const warning = (about: string, message: string): Finding => ({ level: 'warning', about, message });
export const failed = (about: string, message: string): Finding => ({ level: 'error', about, message });
export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
