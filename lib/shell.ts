/** Words for a POSIX shell. */

/** A word as a shell takes it back, in single quotes where it holds anything but plain characters. */
export function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** `argv` as a shell command. */
export function shellCommand(argv: readonly string[]): string {
  return argv.map(shellWord).join(" ");
}
