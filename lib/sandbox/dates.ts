/** Time stamps as the real server writes them: whole seconds, UTC. */

/** How a server writes `updated_at`: both are in the field. */
export type DateForm = "iso" | "$date";

/** `2026-01-01T00:00:00Z`, or `{"$date": "2026-01-01T00:00:00Z"}`. */
export function dateOf(ms: number, form: DateForm = "iso"): string | { $date: string } {
  const text = `${seconds(ms)}Z`;
  return form === "iso" ? text : { $date: text };
}

/** `started_at` as current servers write it: an offset *and* a Z, which no parser takes. */
export function malformedDate(ms: number): string {
  return `${seconds(ms)}+00:00Z`;
}

function seconds(ms: number): string {
  return new Date(ms).toISOString().slice(0, "2026-01-01T00:00:00".length);
}
