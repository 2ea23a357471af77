/**
 * From YAML nodes to values that know where they are in the file. The `yaml` package does the
 * syntax; types, merge keys, repeated keys and aliases are read here, as PyYAML's SafeLoader
 * reads them, so that an alias can be counted before it is expanded.
 */
import {
  isAlias,
  isMap,
  isScalar,
  isSeq,
  type Pair,
  type ParsedNode,
  Scalar,
  type YAMLMap,
  type YAMLSeq,
} from "yaml";
import { type Path, quoted } from "./mistake.ts";
import { resolvePlain, type ScalarValue } from "./yaml_scalar.ts";

/** A value and its offset in the text. `size` counts the values in it, aliases expanded. */
export type Placed = PlacedScalar | PlacedList | PlacedMapping;
type PlacedScalar = ScalarValue & { offset: number; size: number };
interface PlacedList {
  kind: "list";
  items: Placed[];
  offset: number;
  size: number;
}
interface PlacedMapping {
  kind: "mapping";
  entries: Map<string, PlacedEntry>;
  offset: number;
  size: number;
}
interface PlacedEntry {
  keyOffset: number;
  node: Placed;
}

/** Something to say about a place in the text. */
export interface Remark {
  offset: number;
  path: Path;
  message: string;
  /** It is about a key that is not there: the place is that of the mapping which lacks it. */
  isAbsent?: boolean;
}

/** What became of the nodes. `mistakes` empty means that `tree` can be trusted. */
interface Tree {
  tree: Placed;
  mistakes: Remark[];
  warnings: Remark[];
}

/**
 * Values in one file with every alias expanded. Nine lines of aliases to aliases make a thousand
 * million values ("billion laughs"); the largest file in a lab has a few thousand.
 */
const MAX_VALUES = 100_000;
/** Lists in lists in lists: far beyond any configuration, far below the end of the stack. */
const MAX_DEPTH = 200;

const STANDARD_TAG = "tag:yaml.org,2002:";

/** Ends the reading of a tree that is not worth going on with. */
class YamlRefusal extends Error {
  constructor(readonly remark: Remark) {
    super(remark.message);
  }
}

/**
 * Reads a document's contents into values with places.
 *
 * @param lineOf the number of the line that an offset is in
 */
export function placeTree(contents: ParsedNode, lineOf: (offset: number) => number): Tree {
  const builder = new TreeBuilder(lineOf);
  const { mistakes, warnings } = builder;
  try {
    return { tree: builder.place(contents, { offset: 0, path: [] }), mistakes, warnings };
  } catch (error) {
    if (!(error instanceof YamlRefusal)) throw error;
    return { tree: nothing(0), mistakes: [...mistakes, error.remark], warnings };
  }
}

interface Where {
  /** For nodes that have no place of their own: an absent value is placed at its key. */
  offset: number;
  path: Path;
}

type Node = ParsedNode | null;
// The types say that a key is always there; after a syntax error, or in `{: x}`, it need not be.
type AnyPair = Pair<Node, Node>;

class TreeBuilder {
  readonly mistakes: Remark[] = [];
  readonly warnings: Remark[] = [];
  readonly #lineOf: (offset: number) => number;
  /** The latest value of each anchor; null while it is being read, for one that holds itself. */
  readonly #anchors = new Map<string, Placed | null>();
  #values = 0;

  constructor(lineOf: (offset: number) => number) {
    this.#lineOf = lineOf;
  }

  place(node: Node, where: Where): Placed {
    if (node === null) return nothing(where.offset);
    const here = { ...where, offset: node.range?.[0] ?? where.offset };
    if (where.path.length > MAX_DEPTH) {
      throw new YamlRefusal({ ...here, path: [], message: `more than ${MAX_DEPTH} levels deep` });
    }
    if (isAlias(node)) return this.#alias(node.source, here);
    this.#count(1, here);
    if (node.anchor !== undefined) this.#anchors.set(node.anchor, null);
    const placed = this.#placeNew(node, here, where.offset);
    if (node.anchor !== undefined) this.#anchors.set(node.anchor, placed);
    return placed;
  }

  #placeNew(node: Exclude<Node, null>, here: Where, keyOffset: number): Placed {
    if (isScalar(node)) return this.#scalar(node, here, keyOffset);
    if (isSeq<Node>(node)) return this.#list(node, here);
    if (isMap<Node, Node>(node)) return this.#mapping(node, here);
    throw new Error("Cannot place a YAML node that is no scalar, list or mapping");
  }

  #alias(name: string, here: Where): Placed {
    const target = this.#anchors.get(name);
    if (target === undefined || target === null) {
      this.#wrong(
        here,
        target === null
          ? `the alias *${name} stands inside of what it stands for, must not hold itself`
          : `the alias *${name} has no anchor, there must be an &${name} above it`,
      );
      return nothing(here.offset);
    }
    this.#count(target.size, here);
    return { ...target, offset: here.offset };
  }

  #scalar(node: Scalar, here: Where, keyOffset: number): PlacedScalar {
    const text = typeof node.value === "string" ? node.value : "";
    const isPlain = node.type === Scalar.PLAIN;
    const offset = isPlain && text === "" ? keyOffset : here.offset;
    const untagged = isPlain ? resolvePlain(text) : asString(text);
    const hasTag = node.tag !== undefined && node.tag !== "!";
    const scalar = hasTag ? tagged(node.tag, text) : untagged;
    if (scalar === undefined) {
      this.#wrong(here, `${quoted(text)} cannot have the tag ${tagName(node.tag)}: remove the tag`);
      return nothing(offset);
    }
    return { ...scalar, offset, size: 1 };
  }

  #list(node: YAMLSeq<Node>, here: Where): PlacedList {
    this.#expectTag(node.tag, "seq", here);
    const items = node.items.map((item, index) =>
      this.place(item, { offset: here.offset, path: [...here.path, index] })
    );
    return { kind: "list", items, offset: here.offset, size: total(items) };
  }

  #mapping(node: YAMLMap<Node, Node>, here: Where): PlacedMapping {
    this.#expectTag(node.tag, "map", here);
    const merged = new Map<string, PlacedEntry>();
    const own = new Map<string, PlacedEntry>();
    for (const pair of node.items) {
      const keyOffset = pair.key?.range?.[0] ?? here.offset;
      if (isMergeKey(pair)) {
        const inside = { offset: keyOffset, path: [...here.path, "<<"] };
        this.#merge(merged, this.place(pair.value, inside), inside);
        continue;
      }
      const key = this.#key(pair.key, { offset: keyOffset, path: here.path });
      const inside = { offset: keyOffset, path: [...here.path, key ?? "?"] };
      const value = this.place(pair.value, inside);
      if (key === undefined) continue;
      const earlier = own.get(key);
      if (earlier !== undefined) {
        const line = this.#lineOf(earlier.keyOffset);
        const message = `is there twice, this one counts: remove it or the one in line ${line}`;
        this.warnings.push({ ...inside, message });
      }
      own.set(key, { keyOffset, node: value });
    }
    const entries = new Map([...merged, ...own]);
    const values = Array.from(entries.values(), (entry) => entry.node);
    return { kind: "mapping", entries, offset: here.offset, size: total(values) };
  }

  /** `<<: *anchor` or `<<: [*one, *two]`: of several that have a key the first in the list wins. */
  #merge(into: Map<string, PlacedEntry>, source: Placed, { path }: Where): void {
    const sources = source.kind === "list" ? source.items.toReversed() : [source];
    for (const one of sources) {
      if (one.kind !== "mapping") {
        this.#wrong(
          { offset: one.offset, path },
          `is ${describeKind(one)}, must be a mapping or a list of mappings`,
        );
        continue;
      }
      for (const [key, entry] of one.entries) into.set(key, entry);
    }
  }

  /** A key as Python's json module would write it, since that is how servers have got it. */
  #key(node: Node, here: Where): string | undefined {
    const key = this.place(node, here);
    if (key.kind === "list" || key.kind === "mapping" || key.kind === "date") {
      const hint = key.kind === "date" ? ": put it in quotes" : "";
      this.#wrong(here, `${describeKind(key)} is used as a key, a key must be text${hint}`);
      return undefined;
    }
    const name = keyText(key);
    if (name === "__proto__") {
      this.#wrong(here, "the key '__proto__' is not possible: give it another name");
      return undefined;
    }
    if (key.kind !== "string" && name !== key.text) {
      const message = `the key ${quoted(key.text)} is read as ${quoted(name)}: put it in quotes`;
      this.warnings.push({ ...here, message });
    }
    return name;
  }

  #expectTag(tag: string | undefined, type: "seq" | "map", here: Where): void {
    if (tag === undefined || tag === "!" || tag === STANDARD_TAG + type) return;
    this.#wrong(here, `the tag ${tagName(tag)} cannot be used here: remove it`);
  }

  /** Refuses before an alias is expanded, and before the work of expanding is done. */
  #count(values: number, { offset }: Where): void {
    this.#values += values;
    if (this.#values <= MAX_VALUES) return;
    const message = `more than ${MAX_VALUES} values, counting what aliases stand for`;
    throw new YamlRefusal({ offset, path: [], message });
  }

  #wrong({ offset, path }: Where, message: string): void {
    this.mistakes.push({ offset, path, message });
  }
}

function isMergeKey({ key }: AnyPair): boolean {
  return isScalar(key) && key.value === "<<" && key.type === Scalar.PLAIN && key.tag === undefined;
}

function keyText(key: Exclude<PlacedScalar, { kind: "date" }>): string {
  if (key.kind !== "number") return String(key.value);
  const fraction = Number.isInteger(key.value) && key.text.includes(".");
  return fraction ? key.value.toFixed(1) : String(key.value);
}

/** An explicit tag such as `!!str 1`; undefined when the text cannot be of that type. */
function tagged(tag: string | undefined, text: string): ScalarValue | undefined {
  const plain = resolvePlain(text);
  if (tag === `${STANDARD_TAG}str`) return asString(text);
  if (tag === `${STANDARD_TAG}bool` && plain.kind === "boolean") return plain;
  if (tag === `${STANDARD_TAG}null` && plain.kind === "null") return plain;
  const isWhole = plain.kind === "number" && Number.isInteger(plain.value);
  if (tag === `${STANDARD_TAG}int` && isWhole) return plain;
  if (tag === `${STANDARD_TAG}float` && plain.kind === "number") return plain;
  return undefined;
}

function asString(text: string): ScalarValue {
  return { kind: "string", value: text, text };
}

function nothing(offset: number): PlacedScalar {
  return { kind: "null", value: null, text: "", offset, size: 1 };
}

function total(values: readonly Placed[]): number {
  return values.reduce((sum, value) => sum + value.size, 1);
}

/** A tag as a file has it: `!!set`, `!own`. */
function tagName(tag = ""): string {
  return quoted(tag.startsWith(STANDARD_TAG) ? `!!${tag.slice(STANDARD_TAG.length)}` : tag);
}

/** "the number 123", "a list": what a value is, in the words of messages. */
export function describeKind(value: Placed): string {
  switch (value.kind) {
    case "null":
      return "nothing";
    case "boolean":
      return `the boolean ${quoted(value.text)}`;
    case "number":
      return `the number ${quoted(value.text)}`;
    case "date":
      return `the date ${quoted(value.text)}`;
    case "string":
      return `the text ${quoted(value.text)}`;
    case "list":
      return value.items.length === 0 ? "an empty list" : "a list";
    case "mapping":
      return value.entries.size === 0 ? "an empty mapping" : "a mapping";
  }
}

/** What is at a path. Where it ends early, the mapping (or list) that lacks the next step. */
export function findPlaced(
  tree: Placed,
  path: Path,
): { node: Placed | undefined; offset: number; keyOffset: number } {
  let node: Placed = tree;
  let keyOffset = tree.offset;
  for (const step of path) {
    const entry = node.kind === "mapping" ? node.entries.get(String(step)) : undefined;
    const next = node.kind === "list" ? node.items[Number(step)] : entry?.node;
    if (next === undefined) return { node: undefined, offset: node.offset, keyOffset: node.offset };
    keyOffset = entry?.keyOffset ?? next.offset;
    node = next;
  }
  return { node, offset: node.offset, keyOffset };
}
