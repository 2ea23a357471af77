/**
 * Splits a command into words as a POSIX shell does, without expanding anything: quotes and
 * backslashes only. What a quote leaves open reaches to the end.
 */
export function shellWords(command: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote = "";
  for (let i = 0; i < command.length; i++) {
    const char = command[i] ?? "";
    const next = command[i + 1] ?? "";
    if (quote === "'") {
      if (char === "'") quote = "";
      else word += char;
    } else if (char === "\\" && next !== "" && (quote === "" || '"\\$`'.includes(next))) {
      word = (word ?? "") + next;
      i++;
    } else if (quote === '"') {
      if (char === '"') quote = "";
      else word += char;
    } else if (char === "'" || char === '"') {
      quote = char;
      word ??= "";
    } else if (/\s/.test(char)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word = (word ?? "") + char;
    }
  }
  if (word !== undefined) words.push(word);
  return words;
}
