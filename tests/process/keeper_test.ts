import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { findKept } from "../../lib/process/keeper.ts";
import { startKept } from "../../lib/process/keeper_start.ts";
import { OUTPUT_START } from "../../lib/process/kept_output.ts";
import { markOf } from "../../lib/process/mark.ts";
import { allProcesses } from "../../lib/process/proc.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { drained, Place, watch } from "./kept_support.ts";
import { ENV, kill, Output, until } from "./support.ts";

const FIXTURES = join(import.meta.dirname ?? "", "fixtures");

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
