/** The table of phases that `try` ends with. */
import { type PhaseEnded, type Sink, sinkOf } from "../../observe/events.ts";
import { type Phase, PHASES } from "../../phases.ts";

type Row = PhaseEnded | { skipped: string };

/** Keeps what becomes of each phase. */
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
      return `${name} ${checkResult}   status ${String(row.status).padStart(3)}   ${
        row.seconds.toFixed(2)
      } s${why}`;
    });
    return lines.join("\n");
  }
}
