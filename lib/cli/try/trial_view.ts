/** What `try` shows: what it is doing and for how long, and the table of phases at the end. */
import type { Clock } from "../../clock.ts";
import { type PhaseEnded, type Sink, sinkOf } from "../../observe/events.ts";
import { duration } from "../../observe/words.ts";
import { type Phase, PHASES } from "../../phases.ts";
import { progressWords } from "../../progress.ts";
import type { Screen } from "../terminal.ts";

/** So often the seconds on the screen go on. */
const TICK_MS = 1_000;

/** What goes on, kept for the screen. */
export class TrialProgress {
  readonly #screen: Screen;
  readonly #clock: Clock;
  readonly #since: number;
  #phase: { name: Phase; since: number; limitMs: number | undefined } | undefined;
  #isOver = false;
  /** A step that is no phase. */
  #step: { key: string; since: number; words: string } | undefined;

  constructor(screen: Screen, clock: Clock) {
    this.#screen = screen;
    this.#clock = clock;
    this.#since = clock.monotonic();
  }

  /** What is to be told. */
  readonly sink: Sink = sinkOf({
    phase_began: ({ phase, limits }) => {
      this.#phase = { name: phase, since: this.#clock.monotonic(), limitMs: limits.totalMs };
      this.show();
    },
    phase_ended: () => {
      this.#phase = undefined;
      this.show();
    },
    transfer: ({ what, bytes, total, isOver }) => {
      if (isOver) return this.step(undefined);
      const since = this.#step?.key === what ? this.#step.since : this.#clock.monotonic();
      const words = progressWords({ what, total }, bytes, this.#clock.monotonic() - since);
      this.#step = { key: what, since, words };
      this.show();
    },
  });

  /** Something that is done by `try` itself, or the end of it. */
  step(words: string | undefined): void {
    this.#step = words === undefined
      ? undefined
      : { key: words, since: this.#clock.monotonic(), words };
    this.show();
  }

  /** Nothing is shown any more: what is printed now stands for itself. */
  end(): void {
    this.#isOver = true;
    this.#screen.clear();
  }

  /** Keeps the screen up to date until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.show();
      await this.#clock.sleep(TICK_MS, signal).catch(() => {});
    }
    this.end();
  }

  /** `test for 1 min 3 s, at most 4 h 0 min; 1 min 5 s in all`. */
  show(): void {
    if (this.#isOver) return;
    const now = this.#clock.monotonic();
    const words = (ms: number) => duration(ms / 1000);
    const phase = this.#phase;
    const doing = this.#step?.words ??
      (phase === undefined ? "between phases" : `${phase.name} for ${words(now - phase.since)}` +
        (phase.limitMs === undefined ? "" : `, at most ${words(phase.limitMs)}`));
    this.#screen.now(`[try] ${doing}; ${words(now - this.#since)} in all`);
  }
}

type Row = PhaseEnded | { skipped: string };

/** Keeps the result of each phase. */
export class PhaseTable {
  readonly #rows = new Map<Phase, Row>();
  readonly #unconfigured: ReadonlySet<Phase>;

  /**
   * @param unconfigured phases that the job asks for, where no configuration was named that could say
   *   how they are run.
   */
  constructor(unconfigured: ReadonlySet<Phase> = new Set()) {
    this.#unconfigured = unconfigured;
  }

  /** What is to be told. */
  readonly sink: Sink = sinkOf({
    phase_skipped: ({ phase, reason }) => {
      const skipped = this.#unconfigured.has(phase)
        ? "only tests run without an agent's configuration: add -c FILE"
        : reason;
      this.#rows.set(phase, { skipped });
    },
    phase_ended: (event) => void this.#rows.set(event.phase, event),
  });

  /** Whether at least one phase ran and each that ran has status 0. */
  get passed(): boolean {
    const ran = [...this.#rows.values()].filter((row) => "status" in row);
    return ran.length > 0 && ran.every((row) => row.status === 0);
  }

  /** One line per phase. */
  toString(): string {
    const lines = PHASES.map((phase) => {
      const row = this.#rows.get(phase);
      const name = phase.padEnd(16);
      if (row === undefined) return `${name} did not run`;
      if ("skipped" in row) return `${name} skipped: ${row.skipped}`;
      const checkResult = row.status === 0 ? "passed" : "failed";
      const why = row.event === "normal_exit" ? "" : ` (${row.event})`;
      const took = row.seconds === undefined ? "" : `   ${row.seconds.toFixed(2)} s`;
      return `${name} ${checkResult}   status ${String(row.status).padStart(3)}${took}${why}`;
    });
    return lines.join("\n");
  }
}
