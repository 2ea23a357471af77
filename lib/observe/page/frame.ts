/**
 * What the pages of a host and of an agent have in common: the document, and the parts of which they are
 * made, such as bars of phases and lines of a log.
 */
import { html } from "hono/html";
import { type ShownPiece, showText } from "../output_text.ts";
import type { CurrentJob, PastJob, PhaseStatus } from "../status_schema.ts";
import { briefly } from "../words.ts";

/** Markup in which every value has been escaped. */
export type Markup = ReturnType<typeof html>;

export const NOTHING = "";

/** Without a script the page is loaded again after this long. */
const RELOAD_S = 10;

/** How something is: the colour, the symbol, and the icon of the page. */
export type Kind = "good" | "bad" | "warn" | "busy" | "quiet";

/** Besides the colour, which not everybody sees. */
const SYMBOLS: Record<Kind, string> = { good: "●", bad: "✕", warn: "▲", busy: "◐", quiet: "○" };

/** What a page is made of. */
interface PageFrame {
  title: string;
  /** The icon in the browser's tab. */
  icon: Kind;
  /** Which script's part: see `script.ts`. */
  page: "host" | "agent" | "down" | "form";
  /** Where the page's parts are fetched again. */
  address: string;
  /** Where its live events are. */
  events?: string;
  /** Milliseconds since 1970, by the host's clock. */
  now: number;
  version: string;
  /** In the line at the top: where one is, and what leads elsewhere. */
  head: Markup;
  main: Markup;
  foot: Markup;
}

/** The whole document. */
export function renderFrame(frame: PageFrame): Markup {
  return html`
    <!DOCTYPE html>
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark">
        <title>${show(frame.title)}</title>
        <link id="icon" rel="icon" type="image/svg+xml" href="/icon-${frame.icon}.svg">
        <link rel="stylesheet" href="/page.css">
        ${frame.page === "form"
          ? NOTHING
          : html`<noscript><meta http-equiv="refresh" content="${RELOAD_S}"></noscript>`}
        <script src="/page.js" defer></script>
      </head>
      <body data-page="${frame.page}" data-address="${frame.address}" data-now="${frame.now}"
        data-events="${frame.events ?? ""}">
        <a class="skip" href="#main">Skip to the content</a>
        <div id="lost" role="alert" hidden></div>
        <header>${frame.head}</header>
        <main id="main" tabindex="-1">${frame.main}</main>
        <footer>${frame.foot}</footer>
      </body>
    </html>
  `;
}

/** A word with the symbol and the colour of how it is. */
export function badge(kind: Kind, words: string): Markup {
  return html`
    <span
      class="badge ${kind}"><span class="symbol" aria-hidden="true">${SYMBOLS[
        kind
      ]}</span>${words}</span>
  `;
}

/** Of a configuration that cannot be used any more: which, since when, what is wrong, and what then. */
export function brokenNotice(
  file: Markup,
  { since: at, mistakes, now, then }: {
    since: string;
    mistakes: readonly string[];
    now: number;
    then: Markup | string;
  },
): Markup {
  return html`
    <div
      class="notice bad"><p>${file} <strong>cannot be used</strong> as it is now, noticed ${ago(
        at,
        now,
      )}. ${then}</p>${mistakes.map((mistake) => html`<p><code>${show(mistake)}</code></p>`)}</div>
  `;
}

/** A name or a comment from outside; `html` escapes the markup in it. */
export function show(text: string): string {
  return showText(text).replaceAll("\n", " ");
}

/** `2026-11-29 12:00:00 UTC`. */
export function absolute(iso: string): string {
  return `${iso.slice(0, 19).replace("T", " ")} UTC`;
}

/** `3 min ago`; when exactly is said on hover. The script keeps it true. */
export function ago(iso: string | undefined, now: number): Markup {
  if (iso === undefined) return html`<span class="quiet">never</span>`;
  const seconds = (now - Date.parse(iso)) / 1000;
  return html`<time datetime="${iso}" title="${absolute(iso)}" data-rel="ago">${
    briefly(seconds)
  } ago</time>`;
}

/** `3 min`: for how long it has been so. */
export function since(iso: string, now: number): Markup {
  const seconds = (now - Date.parse(iso)) / 1000;
  return html`<time datetime="${iso}" title="since ${absolute(iso)}" data-rel="for">${
    briefly(seconds)
  }</time>`;
}

/** The agent's page. */
export function pathOf(agentId: string): string {
  return `/agents/${encodeURIComponent(agentId)}`;
}

/** The same as data. */
export function jsonOf(agentId: string): string {
  return `/v1/agents/${encodeURIComponent(agentId)}`;
}

/** The last line of a page. */
export function footLine(version: string, startedAt: string, now: number, json: string): Markup {
  return html`<p>testflinger-agent ${show(version)}, up for ${since(startedAt, now)}.
    The same as JSON: <a href="${json}">${json}</a>. For Prometheus: <a href="/metrics">/metrics</a>.</p>`;
}

/** The agent's state as it is shown. */
export const STATE_KIND = new Map<string, Kind>([
  ["waiting", "good"],
  ["offline", "warn"],
  ["maintenance", "warn"],
  ["restart", "warn"],
  ["stopping", "warn"],
  ["starting", "quiet"],
  ["not running", "bad"],
]);

/** A line of a log: its parts, and the phase that begins with it. */
interface Line {
  phase?: string;
  parts: [text: string, look: string][];
}

/** Lines of a log, each an element. */
export function renderLines(pieces: readonly ShownPiece[]): Markup[] {
  return linesOf(pieces).map(({ phase, parts }) =>
    phase !== undefined
      ? html`<div class="mark" data-phase="${phase}" id="log-${phase}">${phase}
</div>`
      : html`<div class="l">${
        parts.map(([text, look]) =>
          look === "" ? html`${text}` : html`<span class="${look}">${text}</span>`
        )
      }</div>`
  );
}

/** Links to the phases of which the log has something. */
export function renderJumps(pieces: readonly ShownPiece[]): Markup | string {
  const phases = pieces.flatMap((piece) =>
    typeof piece === "object" && "phase" in piece ? [piece.phase] : []
  );
  if (phases.length === 0) return NOTHING;
  return html`${
    phases.map((phase) =>
      html`
        <a href="#log-${phase}">${phase}</a>
      `
    )
  }`;
}

function linesOf(pieces: readonly ShownPiece[]): Line[] {
  const lines: Line[] = [];
  let current: Line | undefined;
  for (const piece of pieces) {
    if (typeof piece === "object" && "phase" in piece) {
      lines.push({ phase: piece.phase, parts: [] });
      current = undefined;
      continue;
    }
    const [text, look] = typeof piece === "string" ? [piece, ""] : piece;
    for (const part of text.split(/(?<=\n)/)) {
      if (current === undefined) lines.push(current = { parts: [] });
      current.parts.push([part, look]);
      if (part.endsWith("\n")) current = undefined;
    }
  }
  return lines;
}

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
