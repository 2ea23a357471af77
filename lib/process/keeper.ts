/**
 * A command that outlives the process which started it, and is found again by the next one.
 *
 * Between the command and us stands a keeper: a few small standard tools in a session of their own
 * (together about 1 MB), which put what the command prints on the disk, and how it ended. Everything
 * is in one folder:
 *
 * | file       | made by     | what                                                                 |
 * | ---------- | ----------- | -------------------------------------------------------------------- |
 * | `keeper`   | the keeper  | its identity; removed when nobody wants more of the output           |
 * | `command`  | the command | its identity, in a line of `SAY_IDENTITY`                            |
 * | `begun`    | either      | empty: the command has made it, and runs. A link to `end`: we have   |
 * |            |             | made it, since the command had not begun; it never will              |
 * | `output.N` | the keeper  | what the command prints, in pieces: see kept_output.ts               |
 * | `trouble`  | the keeper  | what was read to write a piece of the output; or `lost`: it could    |
 * |            |             | not be written, and the rest is tried again                          |
 * | `end`      | us          | what the keeper prints itself behind the output of the command       |
 * | `eof`      | the keeper  | nothing more is printed, by nobody                                   |
 * | `status`   | the keeper  | how the command ended: see `exitIn()`; what it has used: see exit.ts |
 *
 * `keeper`, `command`, `trouble` and `status` are made beforehand with room for their text, and
 * written in place with one call: a full disk takes none of them away, and each is whole or blank.
 */
import { systemClock } from "../clock.ts";
import { join } from "../path.ts";
import { type Exit, type GroupUsage, parseUsage } from "./exit.ts";
import { type EndOptions, signalProcess } from "./grace.ts";
import { type GroupEnd, LeadingCommand } from "./group.ts";
import { FolderWatch } from "./folder_watch.ts";
import { bootId, parseIdentity, parseStat, processesOf, type ProcessIdentity } from "./proc.ts";
import { discardOutput, KeptOutput, type OutputPlace } from "./kept_output.ts";
import { Pump } from "./pump.ts";
import { supervise, type SuperviseOptions, type SuperviseResult } from "./run.ts";

/** What has room for its text from the beginning. */
export const ROOMS = ["keeper", "command", "trouble", "status"] as const;
/** How long the last words are waited for of what has ended otherwise than it should have. */
const WORDS_MS = 1_000;

/**
 * Finds a command that an earlier process was about to start, or has started.
 *
 * @param from where reading its output goes on.
 * @returns undefined when it has not begun. It never will then: another one may be started, with a
 * folder of its own.
 */
export function findKept(folder: string, from: OutputPlace): KeptCommand | undefined {
  return claim(folder) ? undefined : commandIn(folder, from);
}

/** Whether the command in this folder has not begun, and is now kept from it. */
function claim(folder: string): boolean {
  try {
    // As `set -C` does: exactly one of us makes it. A link, since it has its content at once then.
    Deno.linkSync(join(folder, "end"), join(folder, "begun"));
    return true;
  } catch (error) {
    // Nothing is started before its folder is complete.
    if (error instanceof Deno.errors.NotFound) return true;
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    return Deno.readTextFileSync(join(folder, "begun")) !== "";
  }
}

/**
 * Why some of the output is lost: what puts it on the disk was killed, and goes on with what comes
 * next; or the disk is full, or has another fault.
 */
export type OutputTrouble = "killed" | "not writable";

/** A command that runs under a keeper, or has run. */
export class KeptCommand implements Disposable {
  /** The command, which leads its group: its pid is the group's number too. */
  readonly identity: ProcessIdentity;
  /** The end of the command itself; others of its group may live on. */
  readonly exit: Promise<Exit>;
  /** What is printed, from where reading begins or goes on; each piece is good until the next is read. */
  readonly output: ReadableStream<Uint8Array>;
  /** Resolves when it has ended, and everything that it has printed itself was read from `output`. */
  readonly whole: Promise<void>;
  readonly #output: KeptOutput;
  readonly #folder: string;
  readonly #watch: FolderWatch;
  readonly #leader: LeadingCommand;
  #isLetGo = false;
  #trouble = "";
  #onTrouble: ((trouble: OutputTrouble) => void) | undefined;

  /** @param watch of the folder; the command's own from now on. */
  constructor(
    folder: string,
    { identity, parent }: CommandNote,
    { from, watch }: { from: OutputPlace; watch: FolderWatch },
  ) {
    this.#folder = folder;
    this.identity = identity;
    this.#watch = watch;
    this.#output = new KeptOutput(folder, from);
    this.output = this.#output.stream(this.#watch);
    this.exit = this.#untilEnded(parent);
    // Who would put the mark behind its output is gone then, too.
    const lost = this.exit.then(({ kind }) =>
      kind === "lost" ? systemClock.sleep(WORDS_MS) : never
    );
    this.whole = Promise.race([this.#output.whole, lost]);
    this.#leader = new LeadingCommand(this);
  }

  /** Ends every process of the group: TERM, then KILL for what is alive after the grace. */
  async end(options: EndOptions): Promise<GroupEnd> {
    // The number of a group says nothing once the host was rebooted.
    if (this.identity.bootId !== await bootId()) return { exit: await this.exit, left: [] };
    return await this.#leader.endGroup(options);
  }

  /** Calls `listener` when some of the output could not be put on the disk, and is lost. */
  whenTroubled(listener: (trouble: OutputTrouble) => void): void {
    this.#onTrouble = listener;
    this.#lookForTrouble();
  }

  /** The place in the output `back` bytes before what comes next. */
  place(back = 0): OutputPlace {
    return this.#output.place(back);
  }

  /** Whether the command itself has ended, as far as can be told at once. */
  get hasEnded(): boolean {
    return exitIn(this.#folder) !== undefined;
  }

  /** What it has used, with all that it had started, when it ended; as far as its control group tells. */
  get usage(): GroupUsage {
    return parseUsage(textOf(this.#folder, "status"));
  }

  /** When something was printed last. */
  get printedAt(): Date | undefined {
    return this.#output.writtenAt;
  }

  /** Nobody will read what is before `place` again. */
  release(place: OutputPlace): void {
    this.#output.release(place);
  }

  /** The command is over, and what was left of its output too: what else comes is thrown away. */
  discard(): void {
    this[Symbol.dispose]();
    discardOutput(this.#folder);
  }

  /** Lets go of the command: it goes on, and `findKept()` finds it again. */
  [Symbol.dispose](): void {
    this.#isLetGo = true;
    this.#output[Symbol.dispose]();
    this.#watch[Symbol.dispose]();
  }

  async #untilEnded(parent: number): Promise<Exit> {
    for (let isFirst = true; !this.#isLetGo; isFirst = false) {
      const changed = this.#watch.changed((name) => name === "status" || name === "trouble");
      this.#lookForTrouble();
      const exit = exitIn(this.#folder);
      if (exit !== undefined) return exit;
      if (await this.#isLost(parent, isFirst)) return exitIn(this.#folder) ?? { kind: "lost" };
      await changed;
    }
    // Nobody asks any more.
    return await never;
  }

  #lookForTrouble(): void {
    const line = lineOf(this.#folder, "trouble");
    const [word, code] = line.split(" ");
    if (word !== "lost" || line === this.#trouble || this.#onTrouble === undefined) return;
    this.#trouble = line;
    // A shell's status for what a signal ended is above 128.
    this.#onTrouble(Number(code) > 128 ? "killed" : "not writable");
  }

  /**
   * Whether all are gone, the command and who would say how it ended: its parent, and the keeper. A command
   * that has just ended is no reason to look closely: its keeper is about to say so.
   */
  async #isLost(parent: number, isFirst: boolean): Promise<boolean> {
    const { pid, startTime, bootId: boot } = this.identity;
    if (boot !== await bootId()) return true;
    const keeper = parseIdentity(lineOf(this.#folder, "keeper"));
    // All of these numbers would have to be given to others for this to be wrong.
    if ((isFirst || isThere(pid)) && isThere(keeper?.pid ?? pid)) return false;
    const living = (await processesOf([pid, parent, keeper?.pid ?? pid]))
      .filter(({ dead }) => !dead);
    return !living.some((process) =>
      process.pid === pid ? process.startTime === startTime : process.session === keeper?.pid
    );
  }
}

/** How a command with a keeper is supervised. */
export interface AttendOptions extends SuperviseOptions {
  /** How long it has printed nothing, in milliseconds. @default {0} */
  silentForMs?: number | undefined;
  /** Gets the output as it comes; as long as it works, nothing more is read. */
  onOutput(bytes: Uint8Array): void | Promise<void>;
  /** Some of the output is lost, though the command goes on. */
  onLoss?: (() => void) | undefined;
}

/**
 * Attends to a command to its end, or until it is left running; see `run()` for the ways in which it
 * ends. When it has ended, what it left running may print on, but nobody hears of it.
 */
export async function attend(
  command: KeptCommand,
  options: AttendOptions,
): Promise<SuperviseResult> {
  using kept = command;
  const failure = Promise.withResolvers<never>();
  kept.whenTroubled((trouble) => {
    if (trouble === "killed") options.onLoss?.();
    else failure.reject(new Error("the disk is full, or cannot be written to"));
  });
  const result = await supervise(kept, { ...options, failure: failure.promise }, () => [
    new Pump(kept.output, { ...options, afterwards: "close", whole: kept.whole }),
  ]);
  if (result.ended !== "left running") kept.discard();
  return result;
}

/** The identity of a command, and of whom it was started. */
interface CommandNote {
  identity: ProcessIdentity;
  parent: number;
}

/**
 * The command in a folder; undefined as long as it has not said who it is.
 *
 * @param watch of the folder, which the command takes over. @default a new one
 */
export function commandIn(
  folder: string,
  from: OutputPlace,
  watch?: FolderWatch,
): KeptCommand | undefined {
  const line = lineOf(folder, "command");
  const identity = parseIdentity(line);
  const parent = parseStat(line.slice(line.indexOf(" ") + 1))?.parent;
  if (identity === undefined || parent === undefined) return undefined;
  return new KeptCommand(folder, { identity, parent }, {
    from,
    watch: watch ?? new FolderWatch(folder),
  });
}

/** Whether the command in a folder has ended. */
export function hasEnded(folder: string): boolean {
  return exitIn(folder) !== undefined;
}

/**
 * How the command ended, as awk's `system()` put it, behind what it had made of a death by signal 9:
 *
 * | signal 9  | exit 3 | signal 15 | who                                                     |
 * | --------- | ------ | --------- | ------------------------------------------------------- |
 * | 265       | 3      | 271       | mawk, gawk, the one true awk                            |
 * | 9         | 768    | 15        | gawk with `POSIXLY_CORRECT`                             |
 * | 0.0351562 | 3      | 0.0585938 | gawk in its traditional mode, and others of long ago    |
 * | 0         | 3      | 143       | busybox: it was left to a shell, which cannot tell      |
 *
 * @returns undefined as long as it is not written.
 */
function exitIn(folder: string): Exit | undefined {
  const [shown, value] = lineOf(folder, "status").replaceAll(",", ".").trim().split(" ")
    .map(Number);
  if (shown === undefined || value === undefined || Number.isNaN(value)) return undefined;
  if (shown === 9) return value & 127 ? signal(value & 127) : code(value >> 8);
  if (shown === 0) return value > 128 && value <= 192 ? signal(value - 128) : code(value);
  if (shown < 1) return value % 1 === 0 ? code(value) : signal(Math.round(value * 256) & 127);
  return value > 255 ? signal(value & 127) : code(value);
}

function signal(signal: number): Exit {
  return { kind: "signal", signal };
}

function code(code: number): Exit {
  return { kind: "code", code };
}

/** The line that a file has, blank as long as it has none. */
function lineOf(folder: string, name: typeof ROOMS[number]): string {
  const text = textOf(folder, name);
  return text.slice(0, Math.max(0, text.indexOf("\n")));
}

function textOf(folder: string, name: typeof ROOMS[number]): string {
  try {
    return Deno.readTextFileSync(join(folder, name));
  } catch {
    return "";
  }
}

const never: Promise<never> = new Promise(() => {});

function isThere(pid: number): boolean {
  return signalProcess(pid, 0) !== "gone";
}
