/** Phases of a job as a bar to scale. The text next to a bar says the same. */
import { html } from "hono/html";
import type { CurrentJob, PastJob, PhaseStatus } from "../status_schema.ts";
import type { Kind, Markup } from "./frame.ts";

/** The bar's own width: how fine it is drawn. */
const WIDTH = 1000;
/** Something that has begun can be seen. */
const THINNEST = 6;

const SECOND = 1000;

/** One phase on the bar: seconds since the job began. */
interface Segment {
  from: number;
  to: number;
  kind: Kind;
}

/** How a phase is, or was. */
export function kindOfPhase({ state, status }: PhaseStatus): Kind {
  if (state === "skipped") return "quiet";
  if (state === "running") return "busy";
  return status === 0 ? "good" : "bad";
}

/** Where a phase lies in its job; undefined when it did not run. */
export function segmentOf(job: CurrentJob | PastJob, entry: PhaseStatus): Segment | undefined {
  if (entry.started_at === undefined) return undefined;
  const from = Math.max(0, (Date.parse(entry.started_at) - Date.parse(job.started_at)) / SECOND);
  return { from, to: from + (entry.seconds ?? 0), kind: kindOfPhase(entry) };
}

/** The phases of a job one after the other, on a bar that is `seconds` long. */
export function jobBar(job: CurrentJob | PastJob, seconds: number): Markup {
  return bar(job.phases.flatMap((entry) => segmentOf(job, entry) ?? []), seconds);
}

/** One phase at its place in the job. */
export function phaseBar(segment: Segment | undefined, seconds: number): Markup {
  return bar(segment === undefined ? [] : [segment], seconds);
}

/** How much of a limit is used. */
export function limitBar(used: number, all: number): Markup {
  const kind = used > 0.9 * all ? "warn" : "busy";
  return bar([{ from: 0, to: Math.min(used, all), kind }], all);
}

function bar(segments: readonly Segment[], seconds: number): Markup {
  const scale = WIDTH / Math.max(1, seconds);
  return html`
    <svg class="bar" viewBox="0 0 ${WIDTH} 10" preserveAspectRatio="none"
      aria-hidden="true">${segments.map(({ from, to, kind }) => {
        const x = Math.min(WIDTH - THINNEST, from * scale);
        // A hair's breadth between two phases that follow each other.
        const width = Math.max(THINNEST, Math.min(WIDTH - x, (to - from) * scale) - 2);
        return html`
          <rect class="${kind}" x="${x.toFixed(1)}" y="0" width="${width.toFixed(1)}" height="10" />
        `;
      })}</svg>
  `;
}

/** Seconds since the job began. */
export function elapsed({ started_at }: CurrentJob, now: number): number {
  return Math.max(0, (now - Date.parse(started_at)) / SECOND);
}

/** How long a job may go on: what has passed, and what its running phase has left. */
export function horizon(job: CurrentJob, now: number): number {
  return elapsed(job, now) + (job.limits?.total_left_seconds ?? 0);
}
