/**
 * What an unquoted word means in YAML 1.1 as PyYAML reads it. The files in the field were written
 * for PyYAML, which differs from the YAML 1.1 type repository in places: `y` is text, `1e3` is
 * text (a float needs a dot and a signed exponent), `09` is text.
 */

/** A scalar with its type. `text` is what the file has, unquoted and unescaped. */
export type ScalarValue =
  | { kind: "null"; value: null; text: string }
  | { kind: "boolean"; value: boolean; text: string }
  | { kind: "number"; value: number; text: string }
  | { kind: "date"; value: Date; text: string }
  | { kind: "string"; value: string; text: string };

const NULL = /^(?:~|null|Null|NULL|)$/;
const TRUE = /^(?:yes|Yes|YES|true|True|TRUE|on|On|ON)$/;
const FALSE = /^(?:no|No|NO|false|False|FALSE|off|Off|OFF)$/;
const BINARY = /^[-+]?0b[01_]+$/;
const OCTAL = /^[-+]?0[0-7_]+$/;
const DECIMAL = /^[-+]?(?:0|[1-9][0-9_]*)$/;
const HEXADECIMAL = /^[-+]?0x[0-9a-fA-F_]+$/;
/** `1:30` is 90: hours, minutes and seconds, or whatever was meant. */
const SEXAGESIMAL = /^[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+$/;
const SEXAGESIMAL_FLOAT = /^[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*$/;
const FLOAT = /^(?:[-+]?[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+][0-9]+)?$/;
const INFINITE = /^[-+]?\.(?:inf|Inf|INF)$/;
const NOT_A_NUMBER = /^\.(?:nan|NaN|NAN)$/;
const DATE = /^(\d{4})-(\d\d)-(\d\d)$/;
const DATE_AND_TIME = new RegExp(
  /^(\d{4})-(\d\d?)-(\d\d?)(?:[Tt]|[ \t]+)(\d\d?):(\d\d):(\d\d)(?:\.\d*)?/.source +
    /(?:[ \t]*(?:Z|[-+]\d\d?(?::\d\d)?))?$/.source,
);

/** The type of an unquoted word, and its value. */
export function resolvePlain(text: string): ScalarValue {
  if (NULL.test(text)) return { kind: "null", value: null, text };
  if (TRUE.test(text)) return { kind: "boolean", value: true, text };
  if (FALSE.test(text)) return { kind: "boolean", value: false, text };
  const number = numberFrom(text);
  if (number !== undefined) return { kind: "number", value: number, text };
  const date = dateFrom(text);
  if (date !== undefined) return { kind: "date", value: date, text };
  return { kind: "string", value: text, text };
}

function numberFrom(text: string): number | undefined {
  const negative = text.startsWith("-");
  const digits = text.replace(/^[-+]/, "").replaceAll("_", "");
  const magnitude = magnitudeFrom(text, digits);
  return magnitude !== undefined && negative ? -magnitude : magnitude;
}

function magnitudeFrom(text: string, digits: string): number | undefined {
  if (DECIMAL.test(text)) return Number(digits);
  if (BINARY.test(text)) return parseInt(digits.slice(2), 2);
  if (OCTAL.test(text)) return parseInt(digits, 8);
  if (HEXADECIMAL.test(text)) return parseInt(digits.slice(2), 16);
  if (SEXAGESIMAL.test(text) || SEXAGESIMAL_FLOAT.test(text)) {
    return digits.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
  }
  if (FLOAT.test(text)) return Number(digits);
  if (INFINITE.test(text)) return Infinity;
  if (NOT_A_NUMBER.test(text)) return NaN;
  return undefined;
}

function dateFrom(text: string): Date | undefined {
  const [, year, month, day] = DATE.exec(text) ?? DATE_AND_TIME.exec(text) ?? [];
  if (year === undefined) return undefined;
  // No key of ours is a time: what counts is that it is not text, so the day is enough.
  return new Date(Date.UTC(Number(year), Number(month) - 1, Number(day)));
}
