/** A place in a file. */
export interface Place {
  /** From 1; 0 when the file as a whole is meant. */
  line: number;
  /** From 1, in characters; 0 when the file as a whole is meant. */
  column: number;
  /** The text there; absent where it might be a secret. */
  source?: Source;
}

/** A line of a file, fit for a screen: control characters are replaced, a long one is cut. */
interface Source {
  text: string;
  /** From 1: where in `text` the place is. */
  column: number;
}

/** One thing that is wrong with (or odd in) a file that a person wrote, and where. */
export interface Mistake extends Place {
  /** The file, as it was named to us. */
  file: string;
  /** The key, such as `advertised_images.rpi4.core`; empty when no key is meant. */
  path: string;
  /** What is wrong, and what is expected. One line. */
  message: string;
}

/** The way to a value: names in mappings, numbers (from 0) in lists. */
export type Path = readonly PropertyKey[];

/** `file:line:column: path: what is wrong, what is expected`, without the parts that do not apply. */
export function formatMistake({ file, line, column, path, message }: Mistake): string {
  const place = line > 0 ? `${file}:${line}:${column}` : file;
  return path === "" ? `${place}: ${message}` : `${place}: ${path}: ${message}`;
}

/** The line of the file, and a caret below the place; nothing where there is nothing to show. */
export function sourceLines({ line, source }: Place): string {
  if (source === undefined) return "";
  const number = String(line).padStart(4);
  const margin = " ".repeat(number.length);
  return `${number} | ${source.text}\n${margin} | ${" ".repeat(source.column - 1)}^\n`;
}

/** A path as people write it: `a.b[0]['c.d']`. */
export function formatPath(path: Path): string {
  let text = "";
  for (const step of path) {
    if (typeof step === "number") text += `[${step}]`;
    else if (!/^[\w-]+$/.test(String(step))) text += `[${quoted(String(step))}]`;
    else text += text === "" ? String(step) : `.${String(step)}`;
  }
  return text;
}

/** Longer values are cut in messages: a whole script or picture helps nobody. */
const LONGEST_SHOWN = 60;

/** A value in single quotes, on one line, without control characters, cut where it is long. */
export function quoted(text: string): string {
  const characters = [...text.slice(0, 2 * LONGEST_SHOWN)];
  const shown = characters.length > LONGEST_SHOWN
    ? characters.slice(0, LONGEST_SHOWN).join("") + "..."
    : characters.join("");
  return `'${oneLine(shown)}'`;
}

/** Text with its control characters, line ends included, written as escapes. */
export function oneLine(text: string): string {
  return text.replace(/[\p{C}\u2028\u2029]/gu, escaped);
}

function escaped(character: string): string {
  if (character === "\n") return "\\n";
  if (character === "\t") return "\\t";
  return `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
}

/** Names longer than this are not compared: nobody misspells a novel. */
const LONGEST_COMPARED = 64;

/** The name that was probably meant, if one is close enough. */
export function didYouMean(written: string, names: Iterable<string>): string | undefined {
  if (written.length > LONGEST_COMPARED) return undefined;
  let best: { name: string; distance: number } | undefined;
  for (const name of names) {
    // A third of the letters: `queues` is no misspelt `quiet`, `agentid` is a misspelt `agent_id`.
    const farthest = Math.max(1, Math.floor(Math.min(name.length, written.length) / 3));
    if (Math.abs(name.length - written.length) > farthest) continue;
    const distance = editDistance(normal(written), normal(name));
    if (distance <= farthest && distance < (best?.distance ?? Infinity)) best = { name, distance };
  }
  return best?.name;
}

/** Capitals and hyphens are the commonest slips, and cost nothing. */
function normal(name: string): string {
  return name.toLowerCase().replaceAll("-", "_");
}

/** Letters to insert, remove, replace or swap with a neighbour to make one word of the other. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1];
      let distance = Math.min(
        at(last, column) + 1,
        at(current, column - 1) + 1,
        at(last, column - 1) + (same ? 0 : 1),
      );
      const swapped = a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) distance = Math.min(distance, at(beforeLast, column - 2) + 1);
      current.push(distance);
    }
    beforeLast = last;
    last = current;
  }
  return at(last, b.length);
}

function at(row: readonly number[], column: number): number {
  return row[column] ?? Infinity;
}
