/**
 * Template variables in test commands: the part of Python's `str.format` that jobs in the field
 * use. Deprecated, since `{{` in a shell script rarely means this.
 */

/** What became of a text. */
export interface Filled {
  readonly text: string;
  /** Whether the text asked for it at all: it has `{{` somewhere. */
  readonly triggered: boolean;
  /** The keys whose values were put in. */
  readonly used: readonly string[];
  /** Constructs that were left as they are, because Python would have refused them. */
  readonly refused: readonly string[];
}

const FIELD = /^([^.[\]!:{}]+)((?:\[[^\]{}]+\])*)$/;
const BASE = /^[^.[!:]*/;

/**
 * Fills in `{name}` and `{name[key]}` from `values`, and makes `{{` a `{` and `}}` a `}`; but only
 * where the text has `{{` somewhere. Unknown names stay.
 */
export function fillTemplate(text: string, values: Readonly<Record<string, unknown>>): Filled {
  if (!text.includes("{{")) return { text, triggered: false, used: [], refused: [] };
  const used: string[] = [];
  const refused: string[] = [];
  let out = "";
  let at = 0;
  while (at < text.length) {
    const char = text.charAt(at);
    if (char !== "{" && char !== "}") {
      const next = text.slice(at).search(/[{}]/);
      const end = next < 0 ? text.length : at + next;
      out += text.slice(at, end);
      at = end;
    } else if (text.charAt(at + 1) === char) {
      out += char;
      at += 2;
    } else {
      const field = char === "{" ? /^\{([^{}]*)\}/.exec(text.slice(at)) : null;
      if (field === null) {
        refused.push(char);
        out += char;
        at++;
        continue;
      }
      const [whole, inner = ""] = field;
      const value = lookUp(inner, values);
      if (value.found === "value") used.push(inner);
      if (value.found === "refused") refused.push(whole);
      out += value.found === "value" ? value.text : whole;
      at += whole.length;
    }
  }
  return { text: out, triggered: true, used, refused };
}

type LookUp =
  | { readonly found: "value"; readonly text: string }
  | { readonly found: "unknown" }
  | { readonly found: "refused" };

function lookUp(field: string, values: Readonly<Record<string, unknown>>): LookUp {
  const base = BASE.exec(field)?.[0] ?? "";
  if (!Object.hasOwn(values, base)) return { found: "unknown" };
  const parts = FIELD.exec(field);
  if (parts === null) return { found: "refused" };
  let value = values[base];
  for (const [, key = ""] of (parts[2] ?? "").matchAll(/\[([^\]]+)\]/g)) {
    if (Array.isArray(value) && /^\d+$/.test(key) && Number(key) < value.length) {
      value = value[Number(key)];
    } else if (isMap(value) && Object.hasOwn(value, key)) {
      value = value[key];
    } else {
      return { found: "refused" };
    }
  }
  return { found: "value", text: typeof value === "string" ? value : pythonText(value) };
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value as Python's `repr` writes it. */
function pythonText(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value === "string") return pythonString(value);
  if (Array.isArray(value)) return `[${value.map(pythonText).join(", ")}]`;
  if (isMap(value)) {
    const entries = Object.entries(value).map(([key, inner]) =>
      `${pythonString(key)}: ${pythonText(inner)}`
    );
    return `{${entries.join(", ")}}`;
  }
  return String(value);
}

function pythonString(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll("\r", "\\r")
    .replaceAll("\t", "\\t").replaceAll(quote, `\\${quote}`);
  return `${quote}${escaped}${quote}`;
}
