const UNIT_S: Readonly<Record<string, number>> = {
  s: 1,
  sec: 1,
  m: 60,
  min: 60,
  h: 3600,
  hour: 3600,
  d: 86_400,
  day: 86_400,
};

const PART = /(\d+)(sec|s|min|m|hour|h|day|d)/g;
const WHOLE = /^(?:\d+(?:sec|s|min|m|hour|h|day|d))+$/;

/**
 * Seconds from a number, from digits, or from a duration as people write it: `90s`, `30min`,
 * `1d5h30m`.
 *
 * @returns undefined when it is none of them.
 */
export function parseDuration(value: unknown): number | undefined {
  if (typeof value === "number") return value >= 0 && Number.isFinite(value) ? value : undefined;
  if (typeof value !== "string") return undefined;
  const text = value.replaceAll(/\s/g, "").toLowerCase();
  if (/^\d+$/.test(text)) return Number(text);
  if (!WHOLE.test(text)) return undefined;
  let seconds = 0;
  for (const [, count, unit = ""] of text.matchAll(PART)) {
    seconds += Number(count) * (UNIT_S[unit] ?? 0);
  }
  return seconds;
}
