/**
 * What is wrong with the syntax of a YAML file. One slip makes much of what follows look wrong, so
 * that there is one mistake: the first, at the place where a person has to change something.
 */
import { type Document, isCollection, isScalar, Scalar, visit, type YAMLError } from "yaml";
import { oneLine } from "./mistake.ts";
import type { Remark } from "./yaml_tree.ts";

/** The first mistake in a document; undefined where the syntax is right. */
export function syntaxMistake(text: string, document: Document): Remark | undefined {
  const [first, ...others] = document.errors.toSorted((a, b) => a.pos[0] - b.pos[0]);
  if (first === undefined) return undefined;
  const indented = first.code === "BLOCK_AS_IMPLICIT_KEY"
    ? others.map((error) => indentedLine(text, error)).find((offset) => offset !== undefined)
    : undefined;
  if (indented !== undefined) {
    const message = "is indented as if it belonged to the line above, must begin where the other " +
      "keys do";
    return { offset: indented, path: [], message };
  }
  const opened = first.code === "MISSING_CHAR" || first.code === "BAD_INDENT"
    ? openedAt(document, first)
    : undefined;
  if (opened !== undefined) return { ...opened, path: [] };
  return { offset: offsetOf(text, first), path: [], message: oneLine(messageFor(first)) };
}

/** The key behind a line end, where a value was taken to go on: `a: 1`, and ` b: 2` below it. */
function indentedLine(text: string, { code, pos: [start, end] }: YAMLError): number | undefined {
  if (code !== "MULTILINE_IMPLICIT_KEY") return undefined;
  const lineEnd = text.slice(start, end).lastIndexOf("\n");
  if (lineEnd < 0) return undefined;
  const rest = text.slice(start + lineEnd + 1);
  return start + lineEnd + 1 + (rest.length - rest.trimStart().length);
}

/** The quote or bracket that is never closed: what is reported is where the file ends. */
function openedAt(
  document: Document,
  { code, pos: [at], message }: YAMLError,
): { offset: number; message: string } | undefined {
  let found: { offset: number; message: string } | undefined;
  visit(document, (_key, node) => {
    const range = isScalar(node) || isCollection(node) ? node.range : undefined;
    if (range === undefined || range === null || range[0] >= at || range[2] < at) return;
    if (isScalar(node)) {
      const isQuoted = node.type === Scalar.QUOTE_DOUBLE || node.type === Scalar.QUOTE_SINGLE;
      if (code === "MISSING_CHAR" && isQuoted) {
        const quote = node.type === Scalar.QUOTE_DOUBLE ? '"' : "'";
        found = { offset: range[0], message: `this ${quote} is never closed: add another one` };
      }
    } else if (isCollection(node) && node.flow === true && /flow (?:map|seq)/i.test(message)) {
      const [open, close] = /flow map/i.test(message) ? ["{", "}"] : ["[", "]"];
      // The outer one: which of several it is, only its writer knows.
      found ??= { offset: range[0], message: `this ${open} is never closed: add ${close}` };
    }
  });
  return found;
}

function offsetOf(text: string, { code, pos: [start] }: YAMLError): number {
  if (code !== "BLOCK_AS_IMPLICIT_KEY") return start;
  // Blanks before the place say nothing.
  const rest = text.slice(start);
  return start + (rest.length - rest.trimStart().length);
}

function messageFor({ code, message }: YAMLError): string {
  switch (code) {
    case "TAB_AS_INDENT":
      return "a tab is used for indentation, must be spaces";
    case "MULTIPLE_DOCS":
      return "a second document begins here, there must be only one: remove it, and the '---'";
    case "BAD_SCALAR_START":
      return `${lowerFirst(message)}: put it in quotes`;
    case "BLOCK_AS_IMPLICIT_KEY":
      return /sequence/.test(message)
        ? "wrong indentation: lines of one list must begin in the same column"
        : "': ' inside of a value, or a wrong indentation: put the value in quotes or indent it";
    case "MULTILINE_IMPLICIT_KEY":
      return "there is no ': ' in this line, must be 'key: value'";
    case "BAD_INDENT":
      return /mapping items/.test(message)
        ? "wrong indentation: keys of one mapping must begin in the same column"
        : `not valid YAML: ${lowerFirst(message)}`;
    case "RESOURCE_EXHAUSTION":
      return "lists or mappings are nested too deeply";
    case "UNEXPECTED_TOKEN":
      // What follows the colon is the file's text, of any length, perhaps a password.
      return /scalar at node end/.test(message)
        ? "there is more behind the end of the value: put all of it in quotes"
        : `not valid YAML: ${lowerFirst(message).replace(/:.*/s, "")}`;
    default:
      return `not valid YAML: ${lowerFirst(message)}`;
  }
}

function lowerFirst(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1);
}
