import { assert, assertEquals } from "@std/assert";
import { systemClock } from "../../lib/clock.ts";
import { startGroup } from "../../lib/process/group.ts";
import type { ProcessIdentity } from "../../lib/process/proc.ts";
import { killNewest, markOf } from "../../lib/process/mark.ts";
import { run } from "../../lib/process/run.ts";
import { endSurvivors, findSurvivors, type SurvivorMark } from "../../lib/process/survivors.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { ENV, groupOf, Output, until } from "./support.ts";

/** Runs a script with a mark of its own; afterwards everything that it left is killed. */
async function leftBy(script: string) {
  const value = crypto.randomUUID();
  const groups: ProcessIdentity[] = [];
  const number = markOf(value);
  const output = new Output();
  await run(["/bin/sh", "-c", script], {
    env: { ...ENV, TEST_MARK: value },
    mark: number,
    clock: systemClock,
    graceMs: 0,
    drainMs: 0,
    onStarted: (identity) => {
      groups.push(identity);
    },
    onOutput: output.onOutput,
  });
  const mark: SurvivorMark = { variable: "TEST_MARK", value, mark: number, groups };
  return {
    mark,
    output,
    names: async (which = mark) => (await findSurvivors(which)).map(({ name }) => name).toSorted(),
    [Symbol.asyncDispose]: async () => {
      await endSurvivors({ ...mark, graceMs: 0, clock: systemClock });
    },
  };
}

/** `run()` may return before a process that was left behind has become what it shall be. */
async function untilNames(
  left: Awaited<ReturnType<typeof leftBy>>,
  expected: readonly string[],
): Promise<void> {
  let names: string[] = [];
  await until(`${expected} are found`, async () => {
    names = await left.names();
    return names.join() === expected.join();
  });
}

Deno.test("daemons are found by the variable, wherever they have gone", async () => {
  await using left = await leftBy("setsid sleep 1000 & (setsid setsid tail -f /dev/null &) ");
  await untilNames(left, ["sleep", "tail"]);
  assertEquals(await left.names({ ...left.mark, groups: [] }), ["sleep", "tail"]);
  const unmarked = { ...left.mark, groups: [], mark: undefined };
  assertEquals(await left.names({ ...unmarked, variable: "OTHER" }), []);
  assertEquals(await left.names({ ...unmarked, value: `${left.mark.value}0` }), []);
});

Deno.test("what has no variable is found by its group, its session and its parents", async () => {
  await using left = await leftBy(
    // One of the group with the variable proves the group.
    "sleep 1000 & env -i tail -f /dev/null & setsid sh -c 'env -i sleep 2000; true' & sleep 0",
  );
  await untilNames(left, ["sh", "sleep", "sleep", "tail"]);
});

Deno.test("what others have ended meanwhile is not looked for among those that were there before", async () => {
  await using left = await leftBy("sleep 1000 & tail -f /dev/null &");
  await untilNames(left, ["sleep", "tail"]);
  const others = async () => {
    // After the first look has begun.
    const found = (await findSurvivors(left.mark)).find(({ name }) => name === "sleep");
    Deno.kill(found!.pid, "SIGKILL");
    await untilNames(left, ["tail"]);
    return "something" as const;
  };
  const { ended } = await endSurvivors({
    ...left.mark,
    graceMs: 10_000,
    clock: new FakeClock(),
    beside: others(),
  });
  assertEquals(ended.map(({ name }) => name), ["tail"]);
});

Deno.test("a recorded group counts while its leader is the same process", async () => {
  await using group = groupOf(await startGroup(["sleep", "1000"], { env: ENV, stderr: "null" }));
  const { identity } = group;
  const find = async (recorded: ProcessIdentity) =>
    (await findSurvivors({ variable: "TEST_MARK", value: "nobody", groups: [recorded] }))
      .map(({ pid }) => pid);
  assertEquals(await find(identity), [identity.pid]);
  assertEquals(await find({ ...identity, startTime: identity.startTime - 1 }), []);
  assertEquals(await find({ ...identity, bootId: crypto.randomUUID() }), []);
});

Deno.test("the agent itself and what it was started by are spared", async () => {
  // A program with the mark that looks for it, as an agent that is tested by a job would.
  const value = crypto.randomUUID();
  const script = new URL("./fixtures/find_survivors.ts", import.meta.url);
  const { stdout } = await new Deno.Command("/bin/sh", {
    args: [
      "-c",
      'sleep 1000 & "$@"; kill $!',
      "sh",
      Deno.execPath(),
      "run",
      "--quiet",
      "--no-lock",
      "--allow-run",
      script.pathname,
      "TEST_MARK",
      value,
    ],
    env: { TEST_MARK: value },
  }).output();
  assertEquals(JSON.parse(new TextDecoder().decode(stdout)), ["sleep"]);
});

Deno.test("survivors that end at TERM are ended before the grace is over", async () => {
  await using left = await leftBy("setsid sleep 1000 & sleep 1000 &");
  await untilNames(left, ["sleep", "sleep"]);
  const clock = new FakeClock();
  const result = await endSurvivors({ ...left.mark, graceMs: 10_000, clock });
  assertEquals(result.ended.map(({ name }) => name), ["sleep", "sleep"]);
  assertEquals(result.left, []);
  assertEquals(await left.names(), []);
  assertEquals(clock.sleepers, 0);
});

Deno.test("survivors that ignore TERM are killed after the grace", async () => {
  await using left = await leftBy(
    "setsid sh -c \"trap '' TERM; while :; do sleep 1000; done\" &",
  );
  await untilNames(left, ["sh", "sleep"]);
  const clock = new FakeClock();
  const end = endSurvivors({ ...left.mark, graceMs: 10_000, clock });
  await until("the grace has begun", () => clock.sleepers > 0);
  await clock.advance(9_999);
  assertEquals(await left.names(), ["sh", "sleep"]);
  await clock.advance(1);
  assertEquals((await end).ended.map(({ name }) => name).toSorted(), ["sh", "sleep"]);
  assertEquals(await left.names(), []);
});

Deno.test("a grace that is forced kills survivors at once", async () => {
  await using left = await leftBy(
    "setsid sh -c \"trap '' TERM; while :; do sleep 1000; done\" &",
  );
  await untilNames(left, ["sh", "sleep"]);
  const forceStop = new AbortController();
  const end = endSurvivors({
    ...left.mark,
    graceMs: 10_000,
    clock: new FakeClock(),
    forceStop: forceStop.signal,
  });
  forceStop.abort();
  assertEquals((await end).left, []);
  assertEquals(await left.names(), []);
});

Deno.test("survivors that are stopped are ended", async () => {
  await using left = await leftBy("setsid sh -c 'kill -STOP $$' &");
  await untilNames(left, ["sh"]);
  const { ended } = await endSurvivors({ ...left.mark, graceMs: 10_000, clock: new FakeClock() });
  assertEquals(ended.map(({ name }) => name), ["sh"]);
});

Deno.test("a survivor that starts others without end, and becomes another one each time, is ended with them", async () => {
  // Each lives for a moment only, and starts the next one, which ignores TERM as well.
  const chain =
    `trap "" TERM; n=0; while [ $n -lt 20 ]; do sh -c "sleep 0.01" & n=$((n+1)); done; exec sh "$0"`;
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/chain`, chain);
    await using left = await leftBy(`setsid sh ${folder}/chain &`);
    await until("it runs", async () => (await left.names()).length > 0);
    const result = await endSurvivors({ ...left.mark, graceMs: 0, clock: systemClock });
    assert(result.ended.length > 0);
    assertEquals(result.left, []);
    assertEquals(await left.names(), []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("without survivors there is nothing to do", async () => {
  const clock = new FakeClock();
  const mark = { variable: "TEST_MARK", value: crypto.randomUUID(), groups: [] };
  assertEquals(await endSurvivors({ ...mark, graceMs: 10_000, clock }), {
    ended: [],
    fleeting: 0,
    left: [],
  });
});

/** Number of a system call, by architecture. */
const PRCTL = Deno.build.arch === "aarch64" ? 167 : 157;
const EXIT_OF_THREAD = Deno.build.arch === "aarch64" ? 93 : 60;

Deno.test("what has no variable, no parent and no group, and forbids to look into it, is found by its mark", async () => {
  await using left = await leftBy(
    // PR_SET_DUMPABLE: its environment belongs to root from then on.
    `(env -i setsid perl -e '$0 = "hidden"; syscall(${PRCTL}, 4, 0, 0, 0, 0); sleep 1000' &)`,
  );
  await untilNames(left, ["hidden"]);
  assertEquals(await left.names({ ...left.mark, mark: undefined, groups: [] }), []);
  const { ended } = await endSurvivors({ ...left.mark, graceMs: 10_000, clock: new FakeClock() });
  assertEquals(ended.map(({ name }) => name), ["hidden"]);
});

Deno.test("a program of which the first thread has ended is found by its mark", async () => {
  const program = "import ctypes, threading, time\n" +
    "threading.Thread(target=time.sleep, args=[1000]).start()\n" +
    `ctypes.CDLL(None).syscall(${EXIT_OF_THREAD}, 0)`;
  await using left = await leftBy(`(env -i setsid python3 -c '${program}' &)`);
  await until("it is found", async () => (await left.names()).length === 1);
  const { ended } = await endSurvivors({ ...left.mark, graceMs: 0, clock: systemClock });
  assertEquals(ended.length, 1);
  await until("it is gone", async () => (await left.names()).length === 0);
});

Deno.test("a program that goes into another session, starts itself again and ends, without end, is ended", async () => {
  const again = 'while (1) { exit if fork; setsid(); $SIG{TERM} = "IGNORE"; %ENV = (); }';
  await using left = await leftBy(`setsid perl -e 'use POSIX; ${again}' &`);
  const { ended, fleeting, left: alive } = await endSurvivors({
    ...left.mark,
    graceMs: 0,
    clock: systemClock,
  });
  // On a machine under load one of them may live long enough to be looked at.
  assert(ended.length + fleeting > 0);
  assertEquals(alive, []);
  assertEquals(await killNewest(left.mark.mark!, 200), 0);
});
