import type { Secrets } from "../process/redactor.ts";

/** A copy of `value` in which every text has its secrets masked, names and numbers included. */
export function redactStrings(
  value: Record<string, unknown>,
  secrets: Secrets,
): Record<string, unknown> {
  const redact = (part: unknown): unknown => {
    if (typeof part === "string") return secrets.redactText(part);
    if (typeof part === "number") {
      const text = secrets.redactText(String(part));
      return text === String(part) ? part : text;
    }
    if (Array.isArray(part)) return part.map(redact);
    if (typeof part !== "object" || part === null) return part;
    return inObject(part);
  };
  const inObject = (object: object) =>
    Object.fromEntries(
      Object.entries(object).map(([key, inner]) => [secrets.redactText(key), redact(inner)]),
    );
  return inObject(value);
}
