import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { systemClock } from "../../lib/clock.ts";
import { statusOf } from "../../lib/process/exit.ts";
import { type GroupOptions, type ProcessGroup, startGroup } from "../../lib/process/group.ts";
import { allProcesses } from "../../lib/process/proc.ts";
import { signalGroup } from "../../lib/process/grace.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { ENV, groupOf, until } from "./support.ts";

async function started(
  argv: readonly string[],
  options: Partial<GroupOptions> = {},
): Promise<ProcessGroup> {
  return groupOf(await startGroup(argv, { env: ENV, stderr: "merge", ...options }));
}

/** Starts a shell script; it prints "ready" when it has come that far. */
async function ready(script: string): Promise<ProcessGroup> {
  const group = await started(["/bin/sh", "-c", script]);
  const reader = group.output.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes("ready")) {
    const { done, value } = await reader.read();
    assert(!done, `ended with: ${text}`);
    text += value;
  }
  return group;
}

async function members(group: ProcessGroup): Promise<string[]> {
  return (await allProcesses())
    .filter((process) => process.group === group.identity.pid && !process.dead)
    .map((process) => process.name);
}

async function read(stream: ReadableStream<Uint8Array> | undefined): Promise<string> {
  return await new Response(stream ?? null).text();
}

Deno.test("a command runs in a session and process group of its own", async () => {
  await using group = await started(["sleep", "1000"]);
  const { pid } = group.identity;
  const process = (await allProcesses()).find((process) => process.pid === pid);
  assertEquals([process?.group, process?.session], [pid, pid]);
});

Deno.test("standard output and error come as one stream, in order", async () => {
  const script = "i=0; while [ $i -lt 200 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";
  await using group = await started(["sh", "-c", script]);
  const expected = Array.from({ length: 200 }, (_, i) => `o${i}\ne${i}\n`).join("");
  assertEquals(await read(group.output), expected);
  assertEquals(group.errors, undefined);
});

Deno.test("no file that the agent has inherited is handed on to a command", async () => {
  const fixture = new URL("fixtures/list_descriptors.ts", import.meta.url).pathname;
  const command = new Deno.Command("/bin/bash", {
    args: [
      "-c",
      'exec 7</dev/null 10</dev/null 251>/dev/null; exec "$@"',
      "bash",
      ...[
        Deno.execPath(),
        "run",
        "--quiet",
        "--allow-run",
        "--allow-read",
        "--allow-sys=uid",
        fixture,
      ],
    ],
  });
  const { stdout, success } = await command.output();
  assert(success);
  const lines = new TextDecoder().decode(stdout).trim().split("\n");
  // ls has opened the folder that it lists.
  assertEquals(lines.filter((line) => /^\d+$/.test(line)), ["0", "1", "2", "3"]);
  assertEquals(lines.filter((line) => /^(fd|many)=/.test(line)), ["fd=mine", "many=mine"]);
});

Deno.test("standard error comes apart when that is wanted", async () => {
  await using group = await started(["sh", "-c", "echo o; echo e >&2"], { stderr: "separate" });
  assertEquals([await read(group.output), await read(group.errors)], ["o\n", "e\n"]);
});

Deno.test("a command gets its arguments as they are, its folder, and only the given environment", async () => {
  const folder = await Deno.realPath(await Deno.makeTempDir());
  try {
    const env = { ...ENV, boot: "b", stat: "s", IFS: "x", KEY: "a b\n'c'" };
    await using group = await started(
      [
        "sh",
        "-c",
        'printf "<%s>" "$0" "$@" "$boot" "$stat" "$KEY"; pwd; exec env -0',
        "me",
        "$x `y`",
        "",
      ],
      { env, cwd: folder },
    );
    const text = await read(group.output);
    const shown = `<me><$x \`y\`><><b><s><a b\n'c'>${folder}\n`;
    assertEquals(text.slice(0, shown.length), shown);
    const names = text.slice(shown.length).split("\0").map((entry) => entry.split("=")[0])
      .filter((name) => name !== "" && !["PWD", "OLDPWD", "SHLVL", "_"].includes(name ?? ""));
    assertEquals(names.toSorted(), ["IFS", "KEY", "PATH", "boot", "stat"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("standard input is empty, or what is given", async () => {
  {
    await using group = await started(["cat"]);
    assertEquals(await read(group.output), "");
  }
  {
    await using group = await started(["cat"], { stdin: new TextEncoder().encode("given") });
    assertEquals(await read(group.output), "given");
  }
  {
    const stdin = ReadableStream.from(["a", "b"]).pipeThrough(new TextEncoderStream());
    await using group = await started(["cat"], { stdin });
    assertEquals(await read(group.output), "ab");
  }
});

Deno.test("a command that does not read its input is no mistake", async () => {
  await using group = await started(["true"], { stdin: new Uint8Array(1_000_000) });
  assertEquals(await group.exit, { kind: "code", code: 0 });
});

Deno.test("the exit status is the code, or 256 minus the signal", async () => {
  const cases: [string, number][] = [
    ["exit 0", 0],
    ["exit 46", 46],
    ["exit 255", 255],
    ["kill -TERM $$", 241],
    ["kill -KILL $$", 247],
    ["kill -PIPE $$", 243],
    ["kill -40 $$", 216],
  ];
  for (const [script, status] of cases) {
    await using group = await started(["sh", "-c", script]);
    assertEquals(statusOf(await group.exit), status, script);
  }
});

Deno.test("a command that cannot be started says why in one line", async () => {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/data`, "no program");
    const cases: [string[], Partial<GroupOptions>, string][] = [
      [["no-such-program"], {}, "no-such-program: no such program in PATH"],
      [["/no/such"], {}, "/no/such: no such program"],
      [[`${folder}/data`], {}, `${folder}/data is not executable`],
      [["./data"], { cwd: folder }, `${folder}/./data is not executable`],
      [[folder], {}, `${folder}: no such program`],
      [["sh"], { cwd: `${folder}/gone` }, `working directory ${folder}/gone is not a directory`],
      [["sh"], { env: { PATH: folder } }, "sh: no such program in PATH"],
      [[], {}, "without a program"],
    ];
    for (const [argv, options, message] of cases) {
      const start = await startGroup(argv, { env: ENV, stderr: "merge", ...options });
      const said = start.started ? "started" : start.message;
      assertStringIncludes(said, message);
      assert(!said.includes("\n"));
    }
    const start = await startGroup(["sh", "x\0y"], { env: ENV, stderr: "merge" });
    assert(!start.started);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("ending a group ends it early when all its processes end at TERM", async () => {
  const clock = new FakeClock();
  await using group = await ready("sleep 1000 & sleep 1000 & echo ready; wait");
  const { exit, left } = await group.end({ graceMs: 10_000, clock });
  assertEquals([exit, left], [{ kind: "signal", signal: 15 }, []]);
  assertEquals(await members(group), []);
  assertEquals(clock.sleepers, 0);
});

Deno.test("what ignores TERM is killed after the grace, also when the command itself has gone", async () => {
  const clock = new FakeClock();
  await using group = await ready(
    "(trap '' TERM; sleep 1000 & echo ready; while :; do sleep 1000; done) & wait",
  );
  const end = group.end({ graceMs: 10_000, clock });
  assertEquals(await group.exit, { kind: "signal", signal: 15 });
  await clock.advance(9_999);
  assert((await members(group)).length > 0);
  await clock.advance(1);
  assertEquals(await end, { exit: { kind: "signal", signal: 15 }, left: [] });
  assertEquals(await members(group), []);
});

Deno.test("a grace that is forced ends at once", async () => {
  const forceStop = new AbortController();
  await using group = await ready("trap '' TERM; echo ready; while :; do sleep 1000; done");
  const end = group.end({ graceMs: 10_000, clock: new FakeClock(), forceStop: forceStop.signal });
  forceStop.abort();
  assertEquals(await end, { exit: { kind: "signal", signal: 9 }, left: [] });
  assertEquals(await members(group), []);
});

Deno.test("a stopped group is ended by TERM", async () => {
  await using group = await ready("trap 'exit 7' TERM; echo ready; kill -STOP $$");
  await until("it has stopped", async () => {
    const { text } = await ps(group.identity.pid);
    return text.startsWith("T");
  });
  const { exit } = await group.end({ graceMs: 10_000, clock: new FakeClock() });
  assertEquals(exit, { kind: "code", code: 7 });
});

Deno.test("what the command left behind in its group is ended after it", async () => {
  await using group = await ready("sleep 1000 & echo ready");
  assertEquals(await group.exit, { kind: "code", code: 0 });
  // It may not have become one yet.
  await until("it sleeps", async () => `${await members(group)}` === "sleep");
  const { exit, left } = await group.end({ graceMs: 10_000, clock: new FakeClock() });
  assertEquals([exit, left, await members(group)], [{ kind: "code", code: 0 }, [], []]);
});

Deno.test("a group that has ended can be ended again", async () => {
  await using group = await started(["true"]);
  await group.exit;
  for (let i = 0; i < 2; i++) {
    const end = await group.end({ graceMs: 10_000, clock: new FakeClock() });
    assertEquals(end, { exit: { kind: "code", code: 0 }, left: [] });
  }
});

Deno.test("who leaves the block of a running command ends it, and spares what an ended one left", async () => {
  let running: ProcessGroup;
  {
    await using group = await ready("trap '' TERM; sleep 1000 & echo ready; wait");
    running = group;
  }
  assertEquals(await members(running), []);
  let ended: ProcessGroup;
  {
    await using group = await ready("sleep 1000 & echo ready");
    ended = group;
    await group.exit;
  }
  // It may not have become one yet.
  await until("it sleeps", async () => `${await members(ended)}` === "sleep");
  await ended.end({ graceMs: 0, clock: systemClock });
});

Deno.test("no signal is ever sent to all processes, or to the agent's own group", () => {
  for (const group of [1, 0, -1]) assertThrows(() => signalGroup(group, 0), RangeError);
});

async function ps(pid: number): Promise<{ text: string }> {
  const { stdout } = await new Deno.Command("/bin/sh", {
    args: ["-c", 'sed "s/.*) //" /proc/$0/stat', String(pid)],
  }).output();
  return { text: new TextDecoder().decode(stdout) };
}
