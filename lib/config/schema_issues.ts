/**
 * What a zod schema has against a value, in words for the person who wrote the file: what is
 * there, what must be there, and where.
 */
import type * as z from "zod";
import { didYouMean, type Path, quoted } from "./mistake.ts";
import { isSecretKey, withoutUsers } from "./source_text.ts";
import { resolvePlain } from "./yaml_scalar.ts";
import { describeKind, findPlaced, type Placed, type Remark } from "./yaml_tree.ts";

type Issue = z.core.$ZodIssue;

/** Schemas with no more keys than this have them all listed when one is not known. */
const MOST_KEYS_LISTED = 8;

/**
 * Zod's `error` for a parse: says what is expected. A schema with an `error` of its own goes
 * first; its text should begin with "must" as these do.
 */
export function expectation(issue: z.core.$ZodRawIssue): string {
  switch (issue.code) {
    case "invalid_type":
      return `must be ${typeExpected(issue)}`;
    case "invalid_value":
      return `must be ${alternatives(issue.values.map((value) => quoted(String(value))))}`;
    case "too_small":
      return sizeExpected(issue.origin, issue.minimum, issue.inclusive ? "at least" : "more than");
    case "too_big":
      return sizeExpected(issue.origin, issue.maximum, issue.inclusive ? "at most" : "less than");
    case "not_multiple_of":
      return `must be a multiple of ${issue.divisor}`;
    case "invalid_format":
      return issue.pattern === undefined
        ? `must be of the form ${issue.format}`
        : `must match ${issue.pattern}`;
    case "unrecognized_keys":
      return knownKeys(issue.inst).join(KEY_SEPARATOR);
    case "invalid_union":
      // Said by the union's options instead, or by its discriminator.
      return Array.isArray(issue.options)
        ? `must be ${alternatives(issue.options.map((value) => quoted(String(value))))}`
        : "";
    default:
      return "is not valid";
  }
}

/** The keys that a schema knows get from the raw issue, which has the schema, to the final one. */
const KEY_SEPARATOR = "\n";

function knownKeys(schema: z.core.$ZodRawIssue["inst"]): string[] {
  const definition = schema?._zod.def;
  if (definition === undefined || !("shape" in definition)) return [];
  const { shape } = definition;
  return typeof shape === "object" && shape !== null ? Object.keys(shape) : [];
}

const TYPE_WORDS: Record<string, string> = {
  string: "text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  tuple: "a list",
  object: "a mapping",
  record: "a mapping",
  null: "empty",
  never: "absent",
  nonoptional: "present",
};

function typeExpected({ expected, input, inst }: z.core.$ZodRawIssue): string {
  if (expected === "number") {
    const definition = inst?._zod.def;
    // zod asks for a number first, and only then for a whole one.
    if (definition !== undefined && "format" in definition) return "a whole number";
    if (typeof input === "number") return "a finite number";
  }
  return TYPE_WORDS[String(expected)] ?? String(expected);
}

function sizeExpected(origin: string, limit: number | bigint, comparison: string): string {
  if (origin === "string" || origin === "array") {
    if (comparison === "at least" && Number(limit) === 1) return "must not be empty";
    const unit = origin === "string" ? "character" : "item";
    return `must have ${comparison} ${limit} ${unit}${Number(limit) === 1 ? "" : "s"}`;
  }
  return `must be ${comparison} ${limit}`;
}

/** Turns a final issue into remarks with places. One issue about several keys makes several. */
export function remarksOf(issue: Issue, tree: Placed, base: Path = []): Remark[] {
  const path = [...base, ...issue.path];
  switch (issue.code) {
    case "unrecognized_keys":
      return issue.keys.map((key) => unknownKey(tree, [...path, key], issue.message));
    case "invalid_key":
      return issue.issues.map(({ message }) => aboutKey(tree, path, message));
    case "invalid_union":
      if (issue.message === "") return unionRemarks(issue.errors, { tree, path });
  }
  return [aboutValue(issue, tree, path)];
}

/** The options' own remarks where one clearly was meant; else what would be possible. */
function unionRemarks(options: Issue[][], { tree, path }: { tree: Placed; path: Path }): Remark[] {
  const meant = options.filter((issues) =>
    issues.every((issue) => issue.path.length > 0 || issue.code !== "invalid_type")
  );
  const [only] = meant;
  if (meant.length === 1 && only !== undefined) {
    return only.flatMap((issue) => remarksOf(issue, tree, path));
  }
  const expected = options.flat().filter((issue) => issue.path.length === 0)
    .map((issue) => issue.message.replace(/^must be /, ""));
  const message = expected.length === 0
    ? "is of none of the possible forms"
    : `must be ${alternatives([...new Set(expected)])}`;
  return [aboutValue({ code: "custom", path: [], message }, tree, path)];
}

function unknownKey(tree: Placed, path: Path, keys: string): Remark {
  const known = keys === "" ? [] : keys.split(KEY_SEPARATOR);
  const meant = didYouMean(String(path.at(-1)), known);
  let expected = "remove it";
  if (meant !== undefined) expected = `did you mean ${quoted(meant)}?`;
  else if (known.length > 0 && known.length <= MOST_KEYS_LISTED) {
    expected = `must be ${alternatives(known.map(quoted))}`;
  }
  return {
    offset: findPlaced(tree, path).keyOffset,
    path,
    message: `is not a known key, ${expected}`,
  };
}

function aboutKey(tree: Placed, path: Path, message: string): Remark {
  const name = quoted(String(path.at(-1)));
  return { offset: findPlaced(tree, path).keyOffset, path, message: `the key ${name} ${message}` };
}

function aboutValue(issue: Issue, tree: Placed, path: Path): Remark {
  const { node, offset } = findPlaced(tree, path);
  if (node === undefined) {
    return { offset, path, message: `is missing, ${issue.message}`, isAbsent: true };
  }
  if (node.kind === "null") return { offset, path, message: `is empty, ${issue.message}` };
  const isSecret = path.some((step) => isSecretKey(String(step)));
  const described = describeKind(node);
  const found = isSecret ? described.replace(/ '.*/, "") : withoutUsers(described);
  const hint = hintFor(issue, node, isSecret);
  return { offset, path, message: `is ${found}, ${issue.message}${hint}` };
}

/** What to do about a number or a boolean without quotes, or with quotes too many. */
function hintFor(issue: Issue, node: Placed, isSecret: boolean): string {
  if (issue.code !== "invalid_type") return "";
  const { expected } = issue;
  if (node.kind === "number" || node.kind === "boolean" || node.kind === "date") {
    if (expected !== "string") return "";
    return isSecret ? ": put it in quotes" : `: put it in quotes, ${quoted(node.text)}`;
  }
  if (node.kind !== "string") return "";
  const unquoted = resolvePlain(node.text).kind;
  const wanted = expected === "int" ? "number" : expected;
  return unquoted === wanted ? ": remove the quotes" : "";
}

function alternatives(choices: readonly string[]): string {
  const last = choices.at(-1) ?? "nothing";
  return choices.length < 2 ? last : `${choices.slice(0, -1).join(", ")} or ${last}`;
}
