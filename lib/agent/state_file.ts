/** What an agent has to remember over a restart, in one small file. */
import { replaceFile } from "../bytes.ts";
import { Said } from "../once.ts";
import * as z from "zod";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { join } from "../path.ts";

/** A reason not to take jobs that outlives the process. */
const DesiredMode = z.object({
  state: z.enum(["offline", "maintenance"]),
  comment: z.string(),
  /** Whether the server shows it: until then it counts whatever the server says. */
  posted: z.boolean(),
  /** Nobody asked for it: the agent itself could not bring its device back. */
  own: z.literal(true).optional(),
});
export type DesiredMode = z.infer<typeof DesiredMode>;

const Content = z.object({
  /** An administrator's, or the agent's own after a device could not be brought back. */
  desired: DesiredMode.optional(),
  /** The job that was the last to find that its device cannot be brought back. */
  lost: z.string().optional(),
  /** A restart that was asked for and not carried out yet. */
  restart: z.object({ comment: z.string() }).optional(),
  /** The state that this agent was last about to post, to tell its own from an administrator's. */
  posted: z.object({ state: z.string(), comment: z.string() }).optional(),
  /** The last one of which the server said that it has it. */
  acknowledged: z.object({ state: z.string(), comment: z.string() }).optional(),
});
export type StateContent = z.infer<typeof Content>;

/** As it is in the file, where the desired mode has the name that earlier versions gave it. */
const Stored = z.preprocess(
  (value) =>
    typeof value === "object" && value !== null && "wish" in value
      ? { ...value, desired: value.wish }
      : value,
  Content,
);

function stored({ desired, ...others }: StateContent): string {
  return JSON.stringify({ ...desired !== undefined && { wish: desired }, ...others });
}

/** Parts that become others, or are forgotten. */
type StateChange = { [Key in keyof StateContent]?: StateContent[Key] | undefined };

/** The file, read at start and written at each change. */
export class StateFile {
  readonly #path: string;
  readonly #log: Log;
  #content: StateContent = {};
  /** What is in the file. */
  #written = "{}";
  readonly #said = new Said();

  /** @param folder the agent's own folder in `results_basedir`; exists. */
  constructor(folder: string, log: Log) {
    this.#path = join(folder, "agent.json");
    this.#log = log;
    let text: string;
    try {
      text = Deno.readTextFileSync(this.#path);
    } catch {
      return; // A first start.
    }
    try {
      this.#content = Stored.parse(JSON.parse(text));
      this.#written = stored(this.#content);
    } catch {
      this.#log.error(
        `Cannot understand ${this.#path}, which is reset: if this agent should be offline, ` +
          "set it offline again on the server",
      );
    }
  }

  /** What is remembered. */
  get content(): Readonly<StateContent> {
    return this.#content;
  }

  /** Remembers something else; `undefined` forgets a part. */
  update(change: StateChange): void {
    if (this.#take(change)) this.write();
  }

  /** The same for what is not missed after a kill: it is written down with the next update. */
  updateLater(change: StateChange): void {
    this.#take(change);
  }

  #take(change: StateChange): boolean {
    const next = { ...this.#content, ...change };
    this.#content = Object.fromEntries(
      Object.entries(next).filter(([, part]) => part !== undefined),
    );
    return stored(this.#content) !== this.#written;
  }

  /** Writes down what is remembered, also when the file has been removed. */
  write(): void {
    const text = stored(this.#content);
    try {
      replaceFile(this.#path, text);
      this.#written = text;
      this.#said.forget("write");
    } catch (error) {
      if (!this.#said.isNew("write")) return;
      this.#log.error(
        `Cannot write ${this.#path}: ${messageOf(error)}. ` +
          "A restart of the agent may forget that it is offline; make room on the disk.",
      );
    }
  }
}
