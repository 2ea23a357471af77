/**
 * Reads YAML that a person wrote, as PyYAML's SafeLoader reads it, and says precisely what is
 * wrong with it. Whatever the file holds, the answer is a value or a list of mistakes.
 */
import { parseDocument, type YAMLError } from "yaml";
import * as z from "zod";
import { formatPath, type Mistake, oneLine, type Path } from "./mistake.ts";
import { decodeText, Lines, readAtMost, readFailure } from "./source_text.ts";
import { expectation, remarksOf } from "./schema_issues.ts";
import { findPlaced, type Placed, placeTree, type Remark } from "./yaml_tree.ts";

/** Either the value, and what is odd about the file, or all that is wrong with it. */
export type YamlResult<T> =
  | { ok: true; value: T; warnings: Mistake[]; placeOf: PlaceOf }
  | { ok: false; mistakes: Mistake[] };

/** Where in the file a value stands, for remarks that take more than the schema to find. */
export type PlaceOf = (path: Path) => { line: number; column: number };

/** Options of {@linkcode readYamlFile}. */
export interface YamlOptions {
  /**
   * Numbers at these paths become text, written as the file has them (`1.10` stays `1.10`).
   *
   * @default numbers stay numbers
   */
  numbersAsText?: (path: Path) => boolean;
  /** Looks at the value as it was written, once it is valid, and may warn about it. */
  review?: (written: unknown, warn: (path: Path, message: string) => void) => void;
}

/** No configuration is larger; a disk image or a log given by mistake is. */
const MAX_FILE_BYTES = 1024 * 1024;

/** One slip of syntax makes others look wrong: a file of commas would bring a million lines. */
const MAX_SYNTAX_MISTAKES = 100;

/**
 * Reads a YAML file whose top level is a mapping, and validates it.
 *
 * A key of an object schema whose value is empty (`key:`) counts as absent, as Python programs
 * treat None. Keys that the file has twice are accepted with a warning: PyYAML takes the last.
 * A schema's own messages should begin with "must": they follow "is the text 'x', ".
 *
 * @param file path of the file; appears in mistakes as it is given
 * @param schema what the file must look like; synchronous
 */
export async function readYamlFile<S extends z.ZodType>(
  file: string,
  schema: S,
  options: YamlOptions = {},
): Promise<YamlResult<z.output<S>>> {
  let bytes: Uint8Array;
  try {
    bytes = await readAtMost(file, MAX_FILE_BYTES + 1);
  } catch (error) {
    return wrongFile(file, `cannot be read: ${readFailure(error)}`);
  }
  if (bytes.length > MAX_FILE_BYTES) {
    return wrongFile(file, `is larger than ${MAX_FILE_BYTES} bytes, must be a configuration file`);
  }
  return readYaml(bytes, schema, { file, ...options });
}

/** {@linkcode readYamlFile} for bytes at hand; `file` is what mistakes call them. */
export function readYaml<S extends z.ZodType>(
  bytes: Uint8Array,
  schema: S,
  { file, numbersAsText = () => false, review }: YamlOptions & { file: string },
): YamlResult<z.output<S>> {
  const decoded = decodeText(bytes);
  if (!decoded.ok) return { ok: false, mistakes: [{ file, path: "", ...decoded.mistake }] };
  const { text } = decoded;
  const lines = new Lines(text);
  const inFile = (remarks: Remark[]) => toMistakes(remarks, { file, lines });

  const parsed = parse(text, lines);
  if (!parsed.ok) return { ok: false, mistakes: inFile(parsed.mistakes) };
  const { tree, warnings } = parsed;

  const written = plainValue(tree, { path: [], numbersAsText });
  const result = schema.safeParse(withoutNulls(written, schema), { error: expectation });
  if (!result.success) {
    const remarks = result.error.issues.flatMap((issue) => remarksOf(issue, tree));
    return { ok: false, mistakes: inFile(remarks) };
  }
  review?.(written, (path, message) => {
    warnings.push({ offset: findPlaced(tree, path).offset, path, message });
  });
  return {
    ok: true,
    value: result.data,
    warnings: inFile(warnings),
    placeOf: (path) => lines.place(findPlaced(tree, path).offset),
  };
}

type Parsed =
  | { ok: true; tree: Placed; warnings: Remark[] }
  | { ok: false; mistakes: Remark[] };

function parse(text: string, lines: Lines): Parsed {
  const document = parseDocument(text, {
    version: "1.1",
    // Everything is text here: yaml_tree.ts gives the types, and judges tags and repeated keys.
    schema: "failsafe",
    resolveKnownTags: false,
    uniqueKeys: false,
    prettyErrors: false,
  });
  if (document.errors.length > 0) {
    return { ok: false, mistakes: syntaxMistakes(document.errors) };
  }
  if (document.contents === null) {
    return wrongText(0, "is empty, must be a mapping (lines of 'key: value')");
  }
  const { tree, mistakes, warnings } = placeTree(document.contents, (offset) => lines.line(offset));
  if (mistakes.length > 0) return { ok: false, mistakes };
  if (tree.kind === "null") {
    return wrongText(tree.offset, "is empty, must be a mapping (lines of 'key: value')");
  }
  if (tree.kind !== "mapping") {
    const found = tree.kind === "list" ? "a list" : "a single value";
    return wrongText(tree.offset, `is ${found}, must be a mapping (lines of 'key: value')`);
  }
  return { ok: true, tree, warnings };
}

function wrongText(offset: number, message: string): Parsed {
  return { ok: false, mistakes: [{ offset, path: [], message }] };
}

function syntaxMistakes(errors: YAMLError[]): Remark[] {
  const mistakes = errors.slice(0, MAX_SYNTAX_MISTAKES).map(syntaxMistake);
  const next = errors[MAX_SYNTAX_MISTAKES];
  if (next !== undefined) {
    const left = errors.length - MAX_SYNTAX_MISTAKES;
    const message = `and ${left} more from here on: correct the ones above first`;
    mistakes.push({ offset: next.pos[0], path: [], message });
  }
  return mistakes;
}

function syntaxMistake({ code, message, pos }: YAMLError): Remark {
  return { offset: pos[0], path: [], message: oneLine(syntaxMessage(code, message)) };
}

function syntaxMessage(code: YAMLError["code"], message: string): string {
  switch (code) {
    case "TAB_AS_INDENT":
      return "a tab is used for indentation, must be spaces";
    case "MULTIPLE_DOCS":
      return "a second document begins here, there must be only one: remove it, and the '---'";
    case "BAD_SCALAR_START":
      return `${lowerFirst(message)}: put it in quotes`;
    case "BLOCK_AS_IMPLICIT_KEY":
      return "': ' inside of a value, or a wrong indentation: put the value in quotes or indent it";
    case "RESOURCE_EXHAUSTION":
      return "lists or mappings are nested too deeply";
    case "UNEXPECTED_TOKEN":
      // What follows the colon is the file's text, of any length, perhaps a password.
      return `not valid YAML: ${lowerFirst(message).replace(/:.*/s, "")}`;
    default:
      return `not valid YAML: ${lowerFirst(message)}`;
  }
}

function lowerFirst(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1);
}

/** What zod gets to see: plain values, no two of them shared. */
function plainValue(
  node: Placed,
  { path, numbersAsText }: { path: Path; numbersAsText: (path: Path) => boolean },
): unknown {
  const inside = (step: string | number) => ({ path: [...path, step], numbersAsText });
  switch (node.kind) {
    case "list":
      return node.items.map((item, index) => plainValue(item, inside(index)));
    case "mapping":
      return Object.fromEntries(
        Array.from(node.entries, ([key, entry]) => [key, plainValue(entry.node, inside(key))]),
      );
    case "number":
      return numbersAsText(path) ? node.text : node.value;
    default:
      return node.value;
  }
}

/** `key:` is an absent key, if the schema knows it; keys that it does not know stay to be judged. */
function withoutNulls(value: unknown, schema: z.ZodType): unknown {
  if (!(schema instanceof z.ZodObject) || typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).filter(([key, entry]) =>
      entry !== null || !Object.hasOwn(schema.shape, key)
    ),
  );
}

/** Remarks in the order of the file, each once. */
function toMistakes(
  remarks: Remark[],
  { file, lines }: { file: string; lines: Lines },
): Mistake[] {
  const seen = new Map<string, Mistake>();
  for (const { offset, path, message } of remarks.toSorted((a, b) => a.offset - b.offset)) {
    const mistake = { file, ...lines.place(offset), path: formatPath(path), message };
    seen.set(JSON.stringify(mistake), mistake);
  }
  return [...seen.values()];
}

function wrongFile(file: string, message: string): { ok: false; mistakes: Mistake[] } {
  return { ok: false, mistakes: [{ file, line: 0, column: 0, path: "", message }] };
}
