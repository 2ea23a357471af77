/** A job's log as markup: the same lines that the page's script makes of live output. */
import { html } from "hono/html";
import type { ShownPiece } from "../output_text.ts";
import { type Markup, NOTHING } from "./frame.ts";

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
