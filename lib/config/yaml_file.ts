/**
 * Reads YAML that a person wrote, as PyYAML's SafeLoader reads it, and says precisely what is
 * wrong with it. Whatever the file holds, the answer is a value or a list of mistakes.
 */
import { parseDocument } from "yaml";
import * as z from "zod";
import { formatPath, type Mistake, type Path, type Place } from "./mistake.ts";
import { decodeText, Lines, readAtMost, readFailure } from "./source_text.ts";
import { expectation, remarksOf } from "./schema_issues.ts";
import { syntaxMistake } from "./syntax_mistake.ts";
import { findPlaced, type Placed, placeTree, type Remark } from "./yaml_tree.ts";

/** Either the value or all that is wrong with the file; and what is odd about its other keys. */
export type YamlResult<T> =
  & (
    | { ok: true; value: T }
    | {
      ok: false;
      mistakes: Mistake[];
      /** The keys whose values are right, defaults included: what depends on them can be judged. */
      valid: Partial<T>;
    }
  )
  & {
    /** The keys that are in the file and are not empty: what is left out has its default. */
    given: ReadonlySet<string>;
    warnings: Mistake[];
    placeOf: PlaceOf;
  };

/** Where in the file a value (or its key) stands, for remarks that take more than the schema to find. */
export type PlaceOf = (path: Path, which?: "value" | "key") => Place;

/** Options of {@linkcode readYamlFile}. */
export interface YamlOptions {
  /**
   * Numbers at these paths become text, written as the file has them (`1.10` stays `1.10`).
   *
   * @default numbers stay numbers
   */
  numbersAsText?: (path: Path) => boolean;
  /** Looks at the value as it was written, and may warn about keys that are valid. */
  review?: (written: unknown, warn: (path: Path, message: string) => void) => void;
}

/** Nobody reads more of them at a time. */
const MAX_SHOWN_LINES = 100;

/** No configuration is larger; a disk image or a log given by mistake is. */
const MAX_FILE_BYTES = 1024 * 1024;

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
  if (!decoded.ok) return unusable([{ file, path: "", ...decoded.mistake }]);
  const { text } = decoded;
  const lines = new Lines(text);
  const inFile = (remarks: Remark[]) => toMistakes(remarks, { file, lines });

  const parsed = parse(text, lines);
  if (!parsed.ok) return unusable(inFile(parsed.mistakes));
  const { tree, warnings } = parsed;
  const placeOf: PlaceOf = (path, which = "value") => {
    const { node, offset, keyOffset } = findPlaced(tree, path);
    if (node === undefined) return lines.place(offset);
    return lines.placeWithSource(which === "key" ? keyOffset : offset);
  };

  const written = plainValue(tree, { path: [], numbersAsText });
  const given = keysIn(written);
  const values = withoutNulls(written, schema);
  const result = schema.safeParse(values, { error: expectation });
  const remarks = result.error?.issues.flatMap((issue) => remarksOf(issue, tree)) ?? [];
  const wrong = new Set(remarks.map(({ path }) => path[0]));
  review?.(written, (path, message) => {
    if (wrong.has(path[0])) return;
    warnings.push({ offset: findPlaced(tree, path).offset, path, message });
  });
  if (!result.success) {
    const valid = validKeys(values, schema);
    const [mistakes, odd] = [inFile(remarks), inFile(warnings)];
    return { ok: false, mistakes, valid, given, warnings: odd, placeOf };
  }
  return {
    ok: true,
    value: result.data,
    warnings: inFile(warnings),
    given,
    placeOf,
  };
}

/** The keys of a mapping whose values are not empty. */
function keysIn(written: unknown): ReadonlySet<string> {
  if (typeof written !== "object" || written === null) return new Set();
  return new Set(
    Object.entries(written).filter(([, value]) => value !== null).map(([key]) => key),
  );
}

/** Each key by itself. */
function validKeys<S extends z.ZodType>(given: unknown, schema: S): Partial<z.output<S>> {
  // A mapping that is tidied up before it is judged.
  const object = schema instanceof z.ZodPipe ? schema.out : schema;
  if (!(object instanceof z.ZodObject) || typeof given !== "object" || given === null) return {};
  const values = new Map(Object.entries(given));
  const valid: Partial<z.output<S>> = {};
  for (const [key, one] of Object.entries(object.shape)) {
    if (!(one instanceof z.ZodType)) continue;
    const result = one.safeParse(values.get(key));
    if (result.success && result.data !== undefined) Object.assign(valid, { [key]: result.data });
  }
  return valid;
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
  const wrong = syntaxMistake(text, document);
  if (wrong !== undefined) return { ok: false, mistakes: [wrong] };
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
  for (const remark of remarks.toSorted((a, b) => a.offset - b.offset)) {
    const { offset, path, message } = remark;
    const isShown = remark.isAbsent !== true && seen.size < MAX_SHOWN_LINES;
    const place = isShown ? lines.placeWithSource(offset) : lines.place(offset);
    const mistake = { file, ...place, path: formatPath(path), message };
    seen.set(JSON.stringify(mistake), mistake);
  }
  return [...seen.values()];
}

function wrongFile<T>(file: string, message: string): YamlResult<T> {
  return unusable([{ file, line: 0, column: 0, path: "", message }]);
}

const NOWHERE: Place = { line: 0, column: 0 };

function unusable<T>(mistakes: Mistake[]): YamlResult<T> {
  return { ok: false, mistakes, valid: {}, given: new Set(), warnings: [], placeOf: () => NOWHERE };
}
