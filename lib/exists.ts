/** Whether something has this name, be it a link to nowhere; false where nobody can tell. */
export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
