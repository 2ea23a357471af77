import { assert, assertEquals, assertLess, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import {
  attend,
  type AttendOptions,
  findKept,
  type KeptCommand,
} from "../../lib/process/keeper.ts";
import { startKept } from "../../lib/process/keeper_start.ts";
import { OUTPUT_START } from "../../lib/process/kept_output.ts";
import { markOf } from "../../lib/process/mark.ts";
import { allProcesses, processesWith } from "../../lib/process/proc.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { ENV, joined, kill, Output, until } from "./support.ts";

const FIXTURES = join(import.meta.dirname ?? "", "fixtures");

/** The result of a run of which somebody holds the output open, after the time that is given to it. */
async function drained<T>(running: Promise<T>, clock: FakeClock): Promise<T> {
  let isOver = false;
  running.then(() => isOver = true, () => isOver = true);
  while (!isOver) {
    await until("it drains", () => isOver || clock.sleepers > 0);
    await clock.advance(2_000);
  }
  return await running;
}

/** A folder for one test in which nothing is left running. */
class Place implements AsyncDisposable {
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

function watch(
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

Deno.test("a kept command that ends by itself gives its status and all of its output", async () => {
  await using place = await Place.make();
  const output = new Output();
  const result = await watch(await place.start("echo out; echo err >&2; exit 3"), output);
  assertEquals(result, { ended: "exited", exit: { kind: "code", code: 3 } });
  assertEquals(output.text, "out\nerr\n");
});

Deno.test("a kept command is found after it was left, and nothing of it is lost", async () => {
  await using place = await Place.make();
  const script = 'echo 1; until [ -e go ]; do sleep 0.01; done; echo 2; sh -c "exit 7"';
  const first = new Output();
  const leave = new AbortController();
  const command = await place.start(script);
  const left = watch(command, first, { leave: leave.signal });
  await first.has("1\n");
  leave.abort();
  assertEquals(await left, { ended: "left running" });

  const found = place.find(command.place());
  assertEquals(found.identity, command.identity);
  await Deno.writeTextFile(place.path("go"), "");
  const second = new Output();
  const result = await watch(found, second);
  assertEquals(result, { ended: "exited", exit: { kind: "code", code: 7 } });
  assertEquals(first.text + second.text, "1\n2\n");
});

Deno.test("a kept command that ended while no agent ran is found with its status", async () => {
  await using place = await Place.make();
  using command = await place.start("echo alone; kill -TERM $$");
  await command.exit;
  await until("its keeper is gone", async () => (await place.alive()).length === 0);
  const output = new Output();
  const result = await watch(place.find(), output);
  assertEquals(result, { ended: "exited", exit: { kind: "signal", signal: 15 } });
  assertEquals(output.text, "alone\n");
});

Deno.test("output that has been read is removed, and a place in it is found again", async () => {
  await using place = await Place.make();
  const size = 80 * 1024 * 1024;
  const script = `head -c ${size} /dev/zero | tr '\\0' x; echo end`;
  using command = await place.start(script);
  await command.exit;
  let taken = OUTPUT_START;
  let bytes = 0;
  // Every 10 MB, another one goes on from where the last one was.
  for (let round = 0; bytes < size + 4; round++) {
    using reader = place.find(taken);
    let some = 0;
    for await (const chunk of reader.output) {
      some += chunk.length;
      taken = reader.place();
      reader.release(taken);
      if (some > 10_000_000) break;
    }
    bytes += some;
  }
  assertEquals(bytes, size + 4);
  const left = [...Deno.readDirSync(place.keeper)].filter(({ name }) => name.startsWith("output."));
  assertLess(left.length, 3);
});

Deno.test("a place some bytes back may be in an earlier file", async () => {
  await using place = await Place.make();
  // 1024 pieces make a file, whatever their size.
  using command = await place.start("i=0; while [ $i -lt 1500 ]; do echo $i; i=$((i+1)); done");
  await command.exit;
  using reader = place.find();
  const all: Uint8Array[] = [];
  for await (const chunk of reader.output) all.push(chunk.slice());
  const text = new TextDecoder().decode(joined(all));
  assertEquals(text, Array.from({ length: 1500 }, (_, i) => `${i}\n`).join(""));
  for (const back of [0, 1, 999, 2600, text.length]) {
    using again = place.find(reader.place(back));
    const rest: Uint8Array[] = [];
    for await (const chunk of again.output) rest.push(chunk.slice());
    assertEquals(new TextDecoder().decode(joined(rest)), text.slice(text.length - back));
  }
});

Deno.test("what is before the place of the last release is not needed to go on", async () => {
  await using place = await Place.make();
  const script = "printf abc; until [ -e go ]; do sleep 0.01; done; printf def";
  using command = await place.start(script);
  const reader = command.output.getReader();
  assertEquals(new TextDecoder().decode((await reader.read()).value), "abc");
  using found = place.find(command.place(1));
  await Deno.writeTextFile(place.path("go"), "");
  const rest: Uint8Array[] = [];
  for await (const chunk of found.output) rest.push(chunk.slice());
  assertEquals(new TextDecoder().decode(joined(rest)), "cdef");
});

Deno.test("a limit ends the whole group of a kept command, and the keeper with it", async () => {
  await using place = await Place.make();
  const clock = new FakeClock();
  const output = new Output();
  const causes: unknown[] = [];
  const script = 'trap "" TERM; (trap "" TERM; echo in; sleep 100) & echo up; wait; sleep 100';
  const running = watch(await place.start(script), output, {
    clock,
    limits: { totalMs: 5_000 },
    onEnding: (cause) => causes.push(cause),
  });
  await output.has("in\n");
  await output.has("up\n");
  await clock.advance(5_000);
  await until("it is being ended", () => clock.sleepers > 0);
  await clock.advance(10_000);
  const result = await running;
  assertEquals(result, {
    ended: "limit",
    limit: "total",
    exit: { kind: "signal", signal: 9 },
  });
  assertEquals(causes, [{ ended: "limit", limit: "total" }]);
  await until("nothing is left", async () => (await place.alive()).length === 0);
});

Deno.test("silence counts from the last byte, also of one that another process has read", async () => {
  await using place = await Place.make();
  const clock = new FakeClock();
  const running = watch(await place.start("sleep 100"), new Output(), {
    clock,
    limits: { silenceMs: 9_000 },
    silentForMs: 8_000,
  });
  await until("it is watched", () => clock.sleepers > 0);
  await clock.advance(1_000);
  assertEquals(await running, {
    ended: "limit",
    limit: "silence",
    exit: { kind: "signal", signal: 15 },
  });
});

Deno.test("a kept command whose keeper is killed goes on, and its status is lost", async () => {
  await using place = await Place.make();
  const clock = new FakeClock();
  const output = new Output();
  const running = watch(
    await place.start("echo up; until [ -e go ]; do sleep 0.01; done; echo end"),
    output,
    { clock },
  );
  await output.has("up\n");
  const command = Number((await Deno.readTextFile(join(place.keeper, "command"))).split(" ")[1]);
  const keeper = Number((await Deno.readTextFile(join(place.keeper, "keeper"))).split(" ")[1]);
  const parts = (await allProcesses()).filter(({ session }) => session === keeper);
  // All of it but what writes the output.
  kill(...parts.filter(({ name }) => name !== "dd").map(({ pid }) => pid));
  assert((await allProcesses()).some(({ pid, dead }) => pid === command && !dead));
  await Deno.writeTextFile(place.path("go"), "");
  const result = await drained(running, clock);
  assertEquals(result, { ended: "exited", exit: { kind: "lost" } });
  assertEquals(output.text, "up\nend\n");
});

Deno.test("where what writes the output is killed, it is said, and the rest comes", async () => {
  await using place = await Place.make();
  const output = new Output();
  let losses = 0;
  const running = watch(
    await place.start("echo up; until [ -e go ]; do sleep 0.01; done; echo end"),
    output,
    { onLoss: () => losses++ },
  );
  await output.has("up\n");
  const keeper = Number((await Deno.readTextFile(join(place.keeper, "keeper"))).split(" ")[1]);
  const writer = (await allProcesses()).find(({ session, name }) =>
    session === keeper && name === "dd"
  );
  kill(writer!.pid);
  await until("the loss is noted", () => losses > 0);
  await Deno.writeTextFile(place.path("go"), "");
  assertEquals(await running, { ended: "exited", exit: { kind: "code", code: 0 } });
  assertEquals([output.text, losses], ["up\nend\n", 1]);
});

Deno.test("a host that is slow to write costs no output, however long that takes", async () => {
  await using place = await Place.make();
  const clock = new FakeClock();
  const output = new Output();
  const script = "echo up; until [ -e go ]; do sleep 0.01; done; sleep 1000 & echo late";
  const running = watch(await place.start(script), output, { clock });
  await output.has("up\n");
  const keeper = Number((await Deno.readTextFile(join(place.keeper, "keeper"))).split(" ")[1]);
  const writer = (await allProcesses()).find(({ session, name }) =>
    session === keeper && name === "dd"
  );
  Deno.kill(writer!.pid, "SIGSTOP");
  await Deno.writeTextFile(place.path("go"), "");
  await until(
    "the command has ended",
    async () => (await Deno.readTextFile(join(place.keeper, "status"))).trim() !== "",
  );
  await until("it drains", () => clock.sleepers > 0);
  await clock.advance(2_000);
  assertEquals(output.text, "up\n");
  Deno.kill(writer!.pid, "SIGCONT");
  assertEquals(await running, { ended: "exited", exit: { kind: "code", code: 0 } });
  assertEquals(output.text, "up\nlate\n");
});

Deno.test("a command may print anything, also what nearly ends its output", async () => {
  await using place = await Place.make();
  const output = new Output();
  // Each time the beginning of the mark stands at the end of a piece.
  const script = "end=$(cat keeper/end); printf 'a\\001'; sleep 0.1; printf \"\\001${end%??}\"; " +
    "sleep 0.1; printf 'b\\001'";
  const command = await place.start(script);
  await watch(command, output);
  const end = await Deno.readTextFile(join(place.keeper, "end"));
  assertEquals(output.text, `a\x01\x01${end.slice(0, -2)}b\x01`);
});

Deno.test("what a kept command leaves behind holds nothing up and may print on", async () => {
  await using place = await Place.make();
  const clock = new FakeClock();
  const script = "(while [ ! -e stop ]; do echo more; sleep 0.01; done; echo $? >ended) & echo up";
  const running = watch(await place.start(script), new Output(), { clock });
  assertEquals(await drained(running, clock), { ended: "exited", exit: { kind: "code", code: 0 } });
  assertEquals(
    [...Deno.readDirSync(place.keeper)].filter(({ name }) => name.startsWith("output.")),
    [],
  );
  await Deno.writeTextFile(place.path("stop"), "");
  await until(
    "it ends by itself",
    async () => await Deno.readTextFile(place.path("ended")).catch(() => "") === "0\n",
  );
});

Deno.test("a daemon that prints without end after its phase fills no disk", async () => {
  await using place = await Place.make();
  const clock = new FakeClock();
  const script = "(exec yes) & sleep 0.1";
  const command = await place.start(script);
  const keeper = Number((await Deno.readTextFile(join(place.keeper, "keeper"))).split(" ")[1]);
  await drained(watch(command, new Output(), { clock }), clock);
  // What goes on is `cat >/dev/null`, and no file comes any more.
  await until("it is thrown away", async () => {
    const names = (await allProcesses()).filter(({ session, dead }) => session === keeper && !dead)
      .map(({ name }) => name);
    return names.includes("cat") && !names.includes("dd");
  });
});

Deno.test("a kept command waits when 256 MiB of its output are unread", async () => {
  await using place = await Place.make();
  using command = await place.start("head -c 600000000 /dev/zero; echo end >ended");
  const size = async () => {
    let all = 0;
    for await (const { name } of Deno.readDir(place.keeper)) {
      all += (await Deno.stat(join(place.keeper, name))).size;
    }
    return all;
  };
  await until("it has printed much", async () => await size() > 256 * 1024 * 1024);
  const keeper = Number((await Deno.readTextFile(join(place.keeper, "keeper"))).split(" ")[1]);
  await until(
    "it is held up",
    async () =>
      (await allProcesses()).some(({ session, name }) => session === keeper && name === "sleep"),
  );
  assertLess(await size(), 330 * 1024 * 1024);
  let bytes = 0;
  for await (const chunk of command.output) {
    bytes += chunk.length;
    command.release(command.place());
  }
  assertEquals(bytes, 600_000_000);
  assertEquals(await command.exit, { kind: "code", code: 0 });
});

Deno.test("a kept command has nothing but its three streams, its folder and its environment", async () => {
  await using place = await Place.make();
  const output = new Output();
  const script =
    "cat; pwd; for fd in /proc/$$/fd/*; do printf '%s ' ${fd##*/}; readlink $fd || echo gone; done; " +
    "set -- $(cat /proc/$$/stat); echo leads $(($1 == $5)) $(($1 == $6)); " +
    "grep -E 'Sig(Ign|Blk)' /proc/self/status; ulimit -S -c; tr '\\0' '\\n' </proc/$$/environ";
  const plain = await new Deno.Command("grep", {
    args: ["-E", "Sig(Ign|Blk)", "/proc/self/status"],
    stdin: "null",
  }).output();
  await watch(await place.start(script, { A: "b 'c'" }), output);
  const lines = output.text.trimEnd().split("\n");
  assertEquals(lines.shift(), place.folder);
  const files = lines.filter((line) => /^\d+ (?!gone)/.test(line))
    .sort((a, b) => parseInt(a) - parseInt(b));
  assertEquals(files[0], "0 /dev/null");
  assertEquals(files[1]?.slice(0, 7), "1 pipe:");
  assertEquals(files[2], `2${files[1]?.slice(1)}`);
  assertEquals(files.length, 3);
  assert(lines.includes("leads 1 1"), output.text);
  assertEquals(
    lines.filter((line) => line.startsWith("Sig")),
    new TextDecoder().decode(plain.stdout).trimEnd().split("\n"),
  );
  // bash closes files that dash cannot name, and counts itself.
  const environment = lines.filter((line) => /^(?!SHLVL=)[A-Z_]+=/.test(line)).sort();
  assertEquals(
    environment,
    ["A=b 'c'", `KEEPER_TEST=${place.mark}`, "PATH=/usr/bin:/bin", `PWD=${place.folder}`],
  );
});

Deno.test("`> /dev/stdout` truncates nothing", async () => {
  await using place = await Place.make();
  const output = new Output();
  await watch(await place.start("echo one; echo two > /dev/stdout; echo three"), output);
  assertEquals(output.text, "one\ntwo\nthree\n");
});

Deno.test("a command that cannot be started says why in one line", async () => {
  await using place = await Place.make();
  const start = (argv: string[], env: Record<string, string>, folder: string) =>
    startKept(argv, { folder: place.path(folder), cwd: place.folder, env });
  const missing = await start(["no-such-program"], ENV, "1");
  assertEquals(missing, {
    started: false,
    message: "Cannot start no-such-program: no such program in PATH",
  });
  // A host without util-linux.
  await Deno.mkdir(place.path("bin"));
  for (const tool of ["awk", "dd", "sh"]) {
    await Deno.symlink(`/usr/bin/${tool}`, place.path(`bin/${tool}`));
  }
  const bare = await start(["/bin/sh", "-c", "true"], { PATH: place.path("bin") }, "2");
  assertStringIncludes(JSON.stringify(bare), "setsid");
  const noFolder = await start(["/bin/sh", "-c", "true"], ENV, "no/such/folder");
  assertEquals(noFolder, {
    started: false,
    message: `Cannot start /bin/sh: nothing can be kept in ${place.path("no/such")}: ` +
      "No such file or directory (os error 2)",
  });
});

Deno.test("a command that has not begun never will, once that was said", async () => {
  await using place = await Place.make();
  assertEquals(findKept(place.keeper, OUTPUT_START), undefined);
  // All that is there just before its keeper starts.
  using command = await place.start("echo x >>runs");
  await command.exit;
  const late = place.path("late");
  await Deno.mkdir(late);
  for (const { name } of Deno.readDirSync(place.keeper)) {
    if (["keeper", "command", "status", "trouble"].includes(name)) {
      await Deno.writeTextFile(join(late, name), " ".repeat(1024));
    }
  }
  await Deno.writeTextFile(join(late, "end"), crypto.randomUUID());
  assertEquals(findKept(late, OUTPUT_START), undefined);
  assertEquals(findKept(late, OUTPUT_START), undefined, "whoever asks again hears the same");
  assertEquals(await Deno.readTextFile(place.path("runs")), "x\n");
});

Deno.test("a command carries the mark that it is given", async () => {
  await using place = await Place.make();
  const mark = markOf(place.mark);
  const started = await startKept(["/bin/sh", "-c", "grep locks /proc/self/limits; echo $#"], {
    folder: place.path("marked"),
    cwd: place.folder,
    env: place.env,
    mark,
  });
  if (!started.started) throw new Error(started.message);
  using command = started.command;
  const output = new Output();
  await watch(command, output);
  assertEquals(output.text.split(/\s+/).slice(0, 7), [
    ...["Max", "file", "locks", `${mark}`, `${mark}`, "locks", "0"],
  ]);
});

Deno.test("wherever a process dies that starts a command, the next one knows whether it runs", async () => {
  await using place = await Place.make();
  const env = { PATH: Deno.env.get("PATH") ?? "", HOME: Deno.env.get("HOME") ?? "/" };
  const counts = { never: 0, found: 0 };
  // The last ones are late enough for a machine with much to do.
  const moments = Array.from({ length: 24 }, (_, i) => Math.round(500 * 1.35 ** i));
  for (const [index, micros] of moments.entries()) {
    const folder = place.path(`k${index}`);
    await new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "-A", join(FIXTURES, "keep_and_die.ts"), folder, `${micros}`],
      env: { ...env, KEEPER_TEST: place.mark },
      stderr: "null",
    }).output();
    const found = findKept(folder, OUTPUT_START);
    const output = new Output();
    if (found === undefined) {
      counts.never++;
    } else {
      counts.found++;
      const result = await watch(found, output);
      assertEquals(result, { ended: "exited", exit: { kind: "code", code: 0 } });
      assertEquals(output.text, "done\n");
    }
    await until("nothing runs there", async () => {
      const { stdout } = await new Deno.Command("pgrep", { args: ["-f", folder] }).output();
      return stdout.length === 0;
    });
    const runs = await Deno.readTextFile(`${folder}.runs`).catch(() => "");
    assertEquals(runs, found === undefined ? "" : "ran\n", `killed after ${micros} µs`);
  }
  assert(counts.never > 0 && counts.found > 0, JSON.stringify(counts));
});

/** Scripts, and how they end. */
const ENDINGS = [
  ["exit 0", { kind: "code", code: 0 }],
  ["exit 3", { kind: "code", code: 3 }],
  ["exit 15", { kind: "code", code: 15 }],
  ["exit 137", { kind: "code", code: 137 }],
  ["exit 143", { kind: "code", code: 143 }],
  ["exit 255", { kind: "code", code: 255 }],
  ["kill -TERM $$", { kind: "signal", signal: 15 }],
  ["kill -KILL $$", { kind: "signal", signal: 9 }],
  ["kill -INT $$", { kind: "signal", signal: 2 }],
  ["kill -PIPE $$", { kind: "signal", signal: 13 }],
  ["kill -40 $$", { kind: "signal", signal: 40 }],
] as const;

const SHELLS = ["dash", "bash", "busybox"];
const AWKS = ["mawk", "gawk", "original-awk", "busybox"];

async function whyNoNamespace(): Promise<string> {
  const { success } = await new Deno.Command("unshare", {
    args: ["--mount", "true"],
    stderr: "null",
  }).output().catch(() => ({ success: false }));
  return success ? "" : " (skipped: no mount namespace)";
}
const noNamespace = await whyNoNamespace();

for (const shell of SHELLS) {
  for (const awk of AWKS) {
    Deno.test({
      name:
        `with ${shell} as the shell and ${awk} as awk, an exit status is not taken for a signal` +
        noNamespace,
      ignore: noNamespace !== "",
      fn: async () => {
        await using place = await Place.make();
        // With busybox, everything that it has is its own.
        const bin = await place.tools(awk, shell === "busybox" ? "busybox" : undefined);
        const real = await Deno.realPath("/bin/sh");
        const { stdout, stderr } = await new Deno.Command("unshare", {
          args: [
            "--mount",
            "/usr/bin/bash",
            "-c",
            `[ ${shell} = dash ] || mount --bind /usr/bin/${shell} ${real}; exec "$@"`,
            "bash",
            Deno.execPath(),
            "run",
            "--quiet",
            "-A",
            join(FIXTURES, "keep.ts"),
            place.folder,
            bin,
            ...ENDINGS.map(([script]) => `echo out; ${script}`),
          ],
        }).output();
        const results = JSON.parse(
          new TextDecoder().decode(stdout) || JSON.stringify(new TextDecoder().decode(stderr)),
        );
        assertEquals(
          results,
          ENDINGS.map(([script, exit]) => ({
            result: { ended: "exited", exit: awk === "busybox" ? untold(exit) : exit, script },
            output: "out\n",
          })).map(({ result: { ended, exit }, output }) => ({ result: { ended, exit }, output })),
        );
      },
    });
  }
}

/** What busybox's awk does not tell: it then is what a shell would say. */
function untold(exit: typeof ENDINGS[number][1]): { kind: string } {
  if (exit.kind === "code" && exit.code > 128 && exit.code <= 192) {
    return { kind: "signal", ...{ signal: exit.code - 128 } };
  }
  return exit;
}

Deno.test("gawk that follows POSIX to the letter is understood", async () => {
  await using place = await Place.make();
  const env = { PATH: await place.tools("gawk"), POSIXLY_CORRECT: "1" };
  for (const [index, [script, exit]] of ENDINGS.entries()) {
    const started = await startKept(["/bin/sh", "-c", script], {
      folder: place.path(`k${index}`),
      cwd: place.folder,
      env,
    });
    if (!started.started) throw new Error(started.message);
    assertEquals(await watch(started.command, new Output()), { ended: "exited", exit });
  }
});

/** Files of a control group as the kernel writes them, which not every host has. */
const GROUP_FILES = {
  "cgroup.procs": "",
  "cpu.stat": "usage_usec 98765432101\nuser_usec 1000000\nsystem_usec 234567\nnr_periods 0\n",
  "memory.peak": "8589934592\n",
  "memory.events": "low 0\nhigh 0\nmax 17\noom 4\noom_kill 3\noom_group_kill 0\n",
  "io.stat": "8:0 rbytes=3000000000 wbytes=1000 rios=1 wios=2 dbytes=0 dios=0\n" +
    "254:0 rbytes=3000000001 wbytes=24 rios=1 wios=1 dbytes=0 dios=0\n253:0\n",
};

for (const awk of AWKS) {
  Deno.test(`with ${awk} as awk it is known what a command has used when it ended`, async () => {
    await using place = await Place.make();
    const PATH = await place.tools(awk);
    const usageWith = async (name: string, files: Record<string, string>) => {
      const cgroup = place.path(`group-${name}`);
      await Deno.mkdir(cgroup);
      for (const [file, text] of Object.entries(files)) {
        await Deno.writeTextFile(join(cgroup, file), text);
      }
      const started = await startKept(["/bin/sh", "-c", "echo out; exit 3"], {
        folder: place.path(name),
        cwd: place.folder,
        env: { PATH },
        cgroup,
      });
      if (!started.started) throw new Error(started.message);
      const output = new Output();
      const result = await watch(started.command, output);
      assertEquals(result, { ended: "exited", exit: { kind: "code", code: 3 } });
      assertEquals(output.text, "out\n");
      return started.command.usage;
    };
    assertEquals(await usageWith("all", GROUP_FILES), {
      cpuMs: 98_765_432.101,
      memoryPeak: 8_589_934_592,
      read: 6_000_000_001,
      written: 1_024,
      killed: 3,
    });
    // What is there without controllers.
    const { "cgroup.procs": procs, "cpu.stat": cpu } = GROUP_FILES;
    assertEquals(await usageWith("few", { "cgroup.procs": procs, "cpu.stat": cpu }), {
      cpuMs: 98_765_432.101,
      killed: 0,
    });
    // The group itself is gone: the command has run all the same, and printed nothing of it.
    assertEquals(await usageWith("gone", {}), { killed: 0 });
  });
}

for (const awk of AWKS) {
  Deno.test(`with ${awk} as awk a label of any characters is only a remark`, async () => {
    await using place = await Place.make();
    await Deno.mkdir(place.path("bin"));
    await Deno.symlink(`/usr/bin/${awk}`, place.path("bin/awk"));
    const started = await startKept(["/bin/sh", "-c", "echo out; exit 3"], {
      folder: place.keeper,
      cwd: place.folder,
      env: { PATH: `${place.path("bin")}:/usr/bin:/bin` },
      label: `labor-süd's "job" $(touch a) \`touch b\` \\\n' }; touch c; #`,
    });
    if (!started.started) throw new Error(started.message);
    const output = new Output();
    const result = await watch(started.command, output);
    assertEquals(result, { ended: "exited", exit: { kind: "code", code: 3 } });
    assertEquals(output.text, "out\n");
    const made = [...Deno.readDirSync(place.folder)].map(({ name }) => name).sort();
    assertEquals(made, ["bin", "keeper"]);
  });
}

Deno.test("many commands at once are all heard and seen to end, though few of their folders are watched", async () => {
  await using place = await Place.make();
  const names = Array.from({ length: 12 }, (_, index) => `many-${index}`);
  const results = await Promise.all(names.map(async (name) => {
    const started = await startKept(["/bin/sh", "-c", `echo ${name}; sleep 0.2; exit 3`], {
      folder: place.path(name),
      cwd: place.folder,
      env: place.env,
    });
    if (!started.started) throw new Error(started.message);
    const output = new Output();
    const { exit } = await watch(started.command, output) as { exit: unknown };
    return [output.text, exit];
  }));
  assertEquals(results, names.map((name) => [`${name}\n`, { kind: "code", code: 3 }]));
});

Deno.test("a keeper takes no more than 5 MB", async () => {
  await using place = await Place.make();
  const output = new Output();
  const running = watch(await place.start("echo up; until [ -e go ]; do sleep 1; done"), output);
  await output.has("up\n");
  const keeper = Number((await Deno.readTextFile(join(place.keeper, "keeper"))).split(" ")[1]);
  let kib = 0;
  for (const { pid } of (await allProcesses()).filter(({ session }) => session === keeper)) {
    // The runtime opens nothing below /proc with the permissions that tests have.
    const { stdout } = await new Deno.Command("cat", {
      args: [`/proc/${pid}/smaps_rollup`],
      stderr: "null",
    }).output();
    kib += Number(/^Pss: +(\d+)/m.exec(new TextDecoder().decode(stdout))?.[1] ?? 0);
  }
  assert(kib > 0 && kib < 5_000, `${kib} KiB`);
  await Deno.writeTextFile(place.path("go"), "");
  await running;
});
