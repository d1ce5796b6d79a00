/** What people may be shown of an address that stands in a setting. */

/** Anything up to the last @ before path and parameters end: a password that was not encoded may hold slashes. */
const LOGIN = /\/\/[^\s?#"',]*@/g;
const SECRET_PARAMETER =
  /([?&](?:key|sig|[^=&\s]*(?:secret|token|passw|signature|credential|access[-_]?key|api[-_]?key)[^=&\s]*)=)[^&\s"']+/gi;

/** The same text without user and password in its addresses, and without parameters that are secret by their name. */
export function withoutSecrets(text: string): string {
  return text.replaceAll(LOGIN, '//…@').replaceAll(SECRET_PARAMETER, '$1…');
}
