import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { attend, findKept } from "../../lib/process/keeper.ts";
import { makeReady, type ReadyCommand } from "../../lib/process/keeper_start.ts";
import { OUTPUT_START } from "../../lib/process/kept_output.ts";
import { allProcesses, processesWith } from "../../lib/process/proc.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { ENV, Output, until } from "./support.ts";

/** Makes commands ready, each in a folder of its own. */
class Place implements AsyncDisposable {
  readonly env = { ...ENV, KEEPER_TEST: crypto.randomUUID() };
  readonly folder = Deno.makeTempDirSync({ prefix: "ready-" });
  readonly cwd = join(this.folder, "cwd");

  constructor() {
    Deno.mkdirSync(this.cwd);
  }

  async ready(script: string): Promise<ReadyCommand> {
    const folder = join(this.folder, crypto.randomUUID());
    const made = await makeReady(["/bin/sh", "-c", script], {
      folder,
      cwd: this.cwd,
      env: this.env,
    });
    if (!made.ready) throw new Error(made.message);
    return made.command;
  }

  /** Processes of this test that live. */
  async alive(): Promise<number[]> {
    const pids = await processesWith(`KEEPER_TEST=${this.env.KEEPER_TEST}`);
    const dead = new Set((await allProcesses()).filter(({ dead }) => dead).map(({ pid }) => pid));
    return pids.filter((pid) => !dead.has(pid));
  }

  /** Resolves when the command has come to where it waits. */
  async waits({ options: { folder } }: ReadyCommand): Promise<void> {
    await until(
      "it waits",
      async () => (await Deno.readTextFile(join(folder, "command"))).includes("\n"),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await until("nothing is left", async () => (await this.alive()).length === 0);
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Begins a command; what it printed. */
async function outputOf(command: ReadyCommand): Promise<string> {
  const begun = await command.begin();
  if (!begun.started) throw new Error(begun.message);
  const output = new Output();
  const { onOutput } = output;
  await attend(begun.command, { clock: new FakeClock(), graceMs: 1_000, onOutput });
  return output.text;
}

Deno.test("a command that was made ready begins when it is told to, and not before", async () => {
  await using place = new Place();
  await using command = await place.ready("touch it; echo begun; cat");
  await place.waits(command);
  assertEquals([...Deno.readDirSync(place.cwd)], []);
  assert((await place.alive()).length > 0);
  assertEquals(await outputOf(command), "begun\n", "and its input is empty");
});

Deno.test("a command that is not wanted any more ends, and never begins", async () => {
  await using place = new Place();
  const command = await place.ready("echo begun >begun");
  await place.waits(command);
  await command[Symbol.asyncDispose]();
  assertEquals(await place.alive(), []);
  assertEquals(findKept(command.options.folder, OUTPUT_START), undefined);
  assertEquals([...Deno.readDirSync(place.cwd)], []);
});

Deno.test("a command that waits ends with the process that made it ready", async () => {
  await using place = new Place();
  const folder = join(place.folder, "theirs");
  const fixture = join(import.meta.dirname ?? "", "fixtures/make_ready.ts");
  const process = new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "-A", fixture, folder],
    env: { KEEPER_TEST: place.env.KEEPER_TEST },
    stdout: "piped",
  }).spawn();
  const reader = process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  assertEquals((await reader.read()).value, "true\n");
  await until(
    "it waits",
    async () => (await Deno.readTextFile(join(folder, "command"))).includes("\n"),
  );
  process.kill("SIGKILL");
  await process.status;
  await reader.cancel();
  await until("nothing is left", async () => (await place.alive()).length === 0);
  assertEquals(findKept(folder, OUTPUT_START), undefined);
  assertEquals(await Deno.stat(`${folder}.runs`).catch(() => "never ran"), "never ran");
});

Deno.test("a ready command works in the directory that has the name by the time it begins", async () => {
  await using place = new Place();
  await using command = await place.ready("ls");
  await place.waits(command);
  await Deno.remove(place.cwd);
  await Deno.mkdir(place.cwd);
  await Deno.writeTextFile(join(place.cwd, "new"), "");
  assertEquals((await outputOf(command)).split("\n")[0], "new");
});

Deno.test("a directory that is gone by the time a command begins is named", async () => {
  await using place = new Place();
  const command = await place.ready("true");
  await Deno.remove(place.cwd);
  assertEquals(await command.begin(), {
    started: false,
    message: `Cannot start /bin/sh: working directory ${place.cwd} is not a directory`,
  });
});

Deno.test("a ready command that was killed does not begin, and says so", async () => {
  await using place = new Place();
  const command = await place.ready("echo begun >begun");
  await place.waits(command);
  for (const pid of await place.alive()) Deno.kill(pid, "SIGKILL");
  assertEquals((await command.begin()).started, false);
  assertEquals(findKept(command.options.folder, OUTPUT_START), undefined);
});
