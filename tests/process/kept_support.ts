import { join } from "node:path";
import {
  attend,
  type AttendOptions,
  findKept,
  type KeptCommand,
} from "../../lib/process/keeper.ts";
import { startKept } from "../../lib/process/keeper_start.ts";
import { OUTPUT_START } from "../../lib/process/kept_output.ts";
import { allProcesses, processesWith } from "../../lib/process/proc.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { ENV, kill, Output, until } from "./support.ts";

/** Waits for the result of a run whose output another process keeps open, and moves the clock on meanwhile. */
export async function drained<T>(running: Promise<T>, clock: FakeClock): Promise<T> {
  let isOver = false;
  running.then(() => isOver = true, () => isOver = true);
  while (!isOver) {
    await until("it drains", () => isOver || clock.sleepers > 0);
    await clock.advance(2_000);
  }
  return await running;
}

/** A folder for one test in which nothing is left running. */
export class Place implements AsyncDisposable {
  readonly mark = crypto.randomUUID();
  readonly env = { ...ENV, KEEPER_TEST: this.mark };

  private constructor(readonly folder: string) {}

  static async make(): Promise<Place> {
    return new Place(await Deno.makeTempDir({ prefix: "keeper-" }));
  }

  get keeper(): string {
    return join(this.folder, "keeper");
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** A folder for PATH with nothing but what a keeper needs: this awk, and the rest of the host or of another program. */
  async tools(awk: string, rest?: string): Promise<string> {
    const folder = this.path("bin");
    await Deno.mkdir(folder);
    await Deno.symlink(`/usr/bin/${awk}`, join(folder, "awk"));
    for (const tool of ["dd", "du", "cat", "setsid", "sleep"]) {
      await Deno.symlink(`/usr/bin/${rest ?? tool}`, join(folder, tool));
    }
    return folder;
  }

  async start(script: string, env: Record<string, string> = {}): Promise<KeptCommand> {
    const started = await startKept(["/bin/sh", "-c", script], {
      folder: this.keeper,
      cwd: this.folder,
      env: { ...this.env, ...env },
    });
    if (!started.started) throw new Error(started.message);
    return started.command;
  }

  find(from = OUTPUT_START): KeptCommand {
    const found = findKept(this.keeper, from);
    if (found === undefined) throw new Error("It has not begun");
    return found;
  }

  /** Processes of this test that live. */
  async alive(): Promise<number[]> {
    const pids = await processesWith(`KEEPER_TEST=${this.mark}`);
    const dead = new Set((await allProcesses()).filter(({ dead }) => dead).map(({ pid }) => pid));
    return pids.filter((pid) => !dead.has(pid));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await until("nothing is left", async () => {
      const alive = await this.alive();
      kill(...alive);
      return alive.length === 0;
    });
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Attends to a command on a clock that stands still. */
export function watch(
  command: KeptCommand,
  output: Output,
  more: Partial<AttendOptions> = {},
): ReturnType<typeof attend> {
  return attend(command, {
    clock: new FakeClock(),
    graceMs: 10_000,
    onOutput: output.onOutput,
    ...more,
  });
}
