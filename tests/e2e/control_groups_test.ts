/** Jobs in control groups, with the program as a process: nothing outlives its job, however it hides. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { JournalFile, readJournal } from "../../lib/outbox/journal.ts";
import { CONTROLLERS } from "../../lib/process/cgroup.ts";
import type { ProgramOptions } from "../support/agent_process.ts";
import { GROUPS, groupShell, groupsNamed, testWithGroups } from "../support/control_groups.ts";
import { House } from "../support/house.ts";
import type { TestHost } from "../support/injected_main.ts";
import { isRunning } from "../support/processes.ts";

/** To become another user takes the superuser. */
const isRoot = Deno.uid() === 0;

/**
 * Starts what nothing but its control group gives away: it has no parent of the job, no environment, and
 * neither the job's mark nor its session; where that can be, it is another user's. Its number is added to
 * a file.
 */
function hidden(file: string): string {
  const user = isRoot ? "setpriv --reuid 65534 --clear-groups " : "";
  const script = `ulimit -w 7 || ulimit -x 7; echo $$ >>${file}; exec ${user}sleep 1000`;
  const isThere = `[ "$(wc -l <${file})" -gt "$before" ]`;
  return `touch ${file}; before=$(wc -l <${file}); ` +
    `(env -i PATH="$PATH" setsid sh -c '${script}' </dev/null >/dev/null 2>&1 &) ; ` +
    `until ${isThere} && [ "$(cat /proc/$(tail -n 1 ${file})/comm)" = sleep ]; do ` +
    "sleep 0.02; done 2>/dev/null";
}

/** Whether it is gone, or dead and nobody has asked how it ended. */
function isGone(file: string): string {
  return `! grep -q . "/proc/$(cat ${file})/cmdline" 2>/dev/null`;
}

async function pidsIn(file: string): Promise<number[]> {
  return (await Deno.readTextFile(file)).trim().split("\n").map(Number);
}

/** Those of the jobs of a house's agent. */
async function groupsOf({ lab }: House): Promise<string[]> {
  return await groupsNamed(`job-${lab.config.agent_id.slice(0, 40)}`);
}

/** Submits a job, and starts an agent that takes it; until its test has printed its first line. */
async function startTest(
  house: House,
  host: TestHost = {},
  options: ProgramOptions = {},
): Promise<string> {
  const { lab } = house;
  const jobId = lab.submit({ test_data: { a: 1 } });
  house.start(host, options);
  await lab.until(() => lab.output(jobId, "test") === "one\n", "the test runs");
  return jobId;
}

testWithGroups(
  "what a job hides is alive until the job ends, and then gone with its group",
  async () => {
    await using house = await House.open({});
    const { lab } = house;
    const file = house.at("hidden");
    await house.configure({
      setup_command: hidden(file),
      test_command: hidden(file),
      cleanup_command: `for pid in $(cat ${file}); do kill -0 $pid && echo alive; done`,
    });
    const jobId = lab.submit({ test_data: { a: 1 } });
    house.start();
    await lab.until(() => lab.output(jobId, "cleanup") !== "", "it cleans up");
    await lab.complete(jobId);
    assertEquals(lab.output(jobId, "cleanup"), "alive\nalive\n");
    const pids = await pidsIn(file);
    assertEquals(pids.length, 2);
    for (const pid of pids) assertEquals(await isRunning(pid), false);
    assertEquals(await groupsOf(house), []);
    await house.end("SIGTERM");
    assertStringIncludes(house.said, `Ended 2 processes that job ${jobId} had left`);
  },
);

testWithGroups(
  "each phase runs in a group of its own, and the log says what it has used",
  async () => {
    await using house = await House.open({});
    const { lab } = house;
    await house.configure({
      setup_command: "sed -n s,^0::.*/,,p /proc/self/cgroup",
      test_command:
        "sed -n s,^0::.*/,,p /proc/self/cgroup; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done",
    });
    const jobId = lab.submit({ test_data: { a: 1 } });
    house.start();
    await lab.complete(jobId);
    await house.end("SIGTERM");
    assertEquals(lab.output(jobId, "setup"), "setup\n");
    assertEquals(lab.output(jobId, "test"), "test\n");
    const [, used] = /Phase test ended .*cpu_seconds=([\d.]+)/.exec(house.said) ?? [];
    assert(Number(used) > 0, house.said);
  },
);

for (const signal of ["SIGKILL", "SIGHUP"] as const) {
  testWithGroups(
    `after ${signal} the next process finds the group of a job that runs on`,
    async () => {
      await using house = await House.open({});
      const { lab } = house;
      const file = house.at("hidden");
      await house.configure({
        test_command:
          `${hidden(file)}; echo one; until [ -e ${house.at("go")} ]; do sleep 0.02; done; ` +
          "echo two",
        cleanup_command: `kill -0 $(cat ${file}) && echo alive`,
      });
      const jobId = lab.submit({ test_data: { a: 1 } });
      house.start();
      await lab.until(() => lab.output(jobId, "test") === "one\n", "the test runs");
      await house.end(signal);
      const [group = "", ...others] = await groupsOf(house);
      assertEquals(others, []);
      assertEquals(await groupShell('cat "$1/cgroup.events"', group), "populated 1\nfrozen 0");
      await house.touch("go");
      house.start();
      await lab.complete(jobId);
      assertEquals(lab.output(jobId, "test"), "one\ntwo\n");
      assertEquals(lab.output(jobId, "cleanup"), "alive\n");
      assertEquals(await isRunning((await pidsIn(file))[0] ?? 0), false);
      assertEquals(await groupsOf(house), []);
      await house.end("SIGTERM");
      assertMatch(house.said, /Phase test ended .*cpu_seconds=/);
    },
  );
}

/** Runs a program in a control group of its own, as a service is. */
const IN_GROUP = 'mkdir -p "$1" && echo 0 >"$1/cgroup.procs" && shift && exec "$@"';

testWithGroups(
  "a job outlives that its agent moves to another service, and nothing in the old one's group outlives it",
  async () => {
    await using house = await House.open({});
    const { lab } = house;
    const file = house.at("hidden");
    await house.configure({
      setup_command: hidden(file),
      test_command: `${hidden(file)}; echo one; until [ -e ${
        house.at("go")
      } ]; do sleep 0.02; done; echo two`,
      cleanup_command: `${hidden(file)}; sed -n s,^0::,,p /proc/self/cgroup; ` +
        `for pid in $(cat ${file}); do kill -0 $pid && echo alive; done`,
    });
    const services = ["old", "new"].map((name) =>
      `${GROUPS!.folder}/service-${name}-${crypto.randomUUID()}`
    );
    const start = (service: string | undefined) =>
      house.start({}, { through: ["/bin/sh", "-c", IN_GROUP, "sh", service ?? ""] });
    const groupsIn = (service: string | undefined) =>
      groupShell('cd "$1" && echo */ | grep -o "job-[^ ]*"', service ?? "");
    try {
      const [old, other] = services;
      const jobId = lab.submit({ test_data: { a: 1 } });
      start(old);
      await lab.until(() => lab.output(jobId, "test") === "one\n", "the test runs");
      const before = await groupsIn(old);
      assertStringIncludes(before, jobId);
      assertEquals(await house.end("SIGHUP"), 1);
      start(other);
      await lab.until(() => house.said.includes("is taken over"), "the next one has the job");
      assertEquals(await groupsIn(old), before);
      await house.touch("go");
      await lab.complete(jobId);
      assertEquals(lab.output(jobId, "test"), "one\ntwo\n");
      const [cleanup, ...alive] = lab.output(jobId, "cleanup").trimEnd().split("\n");
      assertStringIncludes(cleanup ?? "", `/${other?.split("/").at(-1)}/`);
      assertEquals(alive, ["alive", "alive", "alive"]);
      for (const pid of await pidsIn(file)) assertEquals(await isRunning(pid), false);
      assertEquals([await groupsIn(old), await groupsIn(other)], ["", ""]);
      await house.end("SIGTERM");
      assertStringIncludes(house.said, `Ended 3 processes that job ${jobId} had left`);
      assertMatch(house.said, /Phase test ended .*cpu_seconds=0\.\d/);
    } finally {
      await groupShell(
        'for dir in "$@"; do find "$dir" -depth -type d -exec rmdir {} +; done',
        ...services,
      );
    }
  },
);

testWithGroups("what a phase has used counts from its start, over a handover", async () => {
  await using house = await House.open({});
  const { lab } = house;
  await house.configure({
    test_command: `echo one; until [ -e ${house.at("go")} ]; do sleep 0.02; done`,
  });
  // It counts nothing here, is taken away at a handover like the others, and is mostly there.
  const controller = "hugetlb";
  const parent = GROUPS!.folder;
  const service = `${parent}/service-${crypto.randomUUID()}`;
  const before = await groupShell('cat "$1/cgroup.subtree_control"', parent);
  await groupShell(`echo +${controller} >"$1/cgroup.subtree_control"`, parent);
  const host = { controlGroups: [...CONTROLLERS, controller] };
  const options = { through: ["/bin/sh", "-c", IN_GROUP, "sh", service] };
  try {
    const jobId = await startTest(house, host, options);
    await house.end("SIGHUP");
    const { agent_id, results_basedir } = lab.config;
    const journal = join(results_basedir, `agent-${agent_id}`, "jobs", jobId, "record");
    const isUsed = (value: unknown) =>
      typeof value === "object" && value !== null && "t" in value && value.t === "used";
    const used = readJournal(await Deno.readFile(journal)).values.filter(isUsed);
    const there = await groupShell('cat "$1/cgroup.controllers"', service);
    assertEquals(used.length, there === "" ? 0 : 1);
    // As the kernel counts where it has controllers that count, which not every host of tests does.
    const { file } = JournalFile.open(journal);
    const counted = { memoryPeak: 2 ** 30, read: 3 * 2 ** 30, written: 5 * 2 ** 30, killed: 1 };
    file.append({ t: "used", phase: "test", ...counted });
    file.close();
    house.start(host, options);
    await house.touch("go");
    await lab.complete(jobId);
    assertStringIncludes(
      lab.output(jobId, "test"),
      "WARNING: Memory ran out, and the kernel killed a process of this phase",
    );
    await house.end("SIGTERM");
    assertMatch(
      house.said,
      /Phase test ended .*cpu_seconds=\S+ memory_peak="1\.0 GiB" disk_read="3\.0 GiB" disk_written="5\.0 GiB"/,
    );
  } finally {
    await groupShell('find "$1" -depth -type d -exec rmdir {} +', service);
    if (!before.includes(controller)) {
      await groupShell(`echo -${controller} >"$1/cgroup.subtree_control"`, parent);
    }
  }
});

testWithGroups(
  "a job that is interrupted has nothing left running when it is cleaned up",
  async () => {
    await using house = await House.open({});
    const { lab } = house;
    const file = house.at("hidden");
    await house.configure({
      test_command: `${hidden(file)}; echo one; sleep 1000`,
      cleanup_command: `${isGone(file)} && echo gone; ${hidden(file)}`,
    });
    const jobId = lab.submit({ test_data: { a: 1 } });
    house.start({ bootId: "before" });
    await lab.until(() => lab.output(jobId, "test") === "one\n", "the test runs");
    await house.end("SIGKILL");
    house.start({ bootId: "after" });
    await lab.complete(jobId);
    assertEquals(lab.output(jobId, "cleanup"), "gone\n");
    for (const pid of await pidsIn(file)) assertEquals(await isRunning(pid), false);
    assertEquals(await groupsOf(house), []);
  },
);

testWithGroups("what is left of a job that is gone is ended when the agent starts", async () => {
  await using house = await House.open({});
  const { lab } = house;
  const file = house.at("hidden");
  await house.configure({ test_command: `${hidden(file)}; echo one; sleep 1000` });
  const jobId = await startTest(house);
  await house.end("SIGKILL");
  // Somebody cleans up the wrong folder.
  const { agent_id, results_basedir } = lab.config;
  await Deno.remove(join(results_basedir, `agent-${agent_id}`, "jobs", jobId), { recursive: true });
  house.start();
  await lab.eventually(async () => (await groupsOf(house)).length === 0, "the group is gone");
  assertEquals(await isRunning((await pidsIn(file))[0] ?? 0), false);
  await house.end("SIGTERM");
  assertMatch(house.said, /Ended \d+ processes that jobs had left which are gone/);
});

const lacking = ["memory", "pids"].filter((name) => GROUPS?.controllers.includes(name) !== true);
const whyNoLimits = lacking.length === 0
  ? ""
  : ` (LEFT OUT, this host's control groups of version 2 have no controller ${lacking.join(", ")})`;

Deno.test(
  "a job is kept within its limits, and its log names the processes that the kernel killed" +
    whyNoLimits,
  {
    ignore: whyNoLimits !== "",
  },
  async () => {
    await using house = await House.open({ job_memory_max: "64 MiB", job_pids_max: 50 });
    const { lab } = house;
    await house.configure({
      setup_command: "i=0; while [ $i -lt 100 ]; do sleep 1000 & i=$((i+1)); done; echo all",
      provision_command: "true",
      test_command: `echo one; until [ -e ${house.at("go")} ]; do sleep 0.02; done; ` +
        'perl -e \'$x = "x" x 200_000_000; print "all"\'; echo went on',
      cleanup_command: "perl -e '$x = \"x\" x 20_000_000; print length $x'",
    });
    const first = lab.submit({ provision_data: { a: 1 } });
    house.start();
    await lab.complete(first);
    assertMatch(lab.output(first, "setup"), /fork/i);
    assert(lab.statuses(first).setup !== 0);
    // What setup has left has used up what the job may have, and cleanup runs all the same.
    assertEquals(lab.output(first, "cleanup"), "20000000");
    await house.configure({ setup_command: "" });
    await house.end("SIGTERM");
    const second = lab.submit({ test_data: { a: 1 } });
    house.start();
    await lab.until(() => lab.output(second, "test") === "one\n", "the test runs");
    // An agent that hands over takes the controllers away, so that a supervisor can start the next one.
    await house.end("SIGHUP");
    const [group = ""] = await groupsOf(house);
    assertEquals(await groupShell('[ -e "$1/limited/memory.max" ] || echo none', group), "none");
    house.start();
    await lab.eventually(
      async () => await groupShell('cat "$1/limited/memory.max"', group) === `${64 * 2 ** 20}`,
      "the limit is kept again",
    );
    await house.touch("go");
    await lab.complete(second);
    assertMatch(
      lab.output(second, "test"),
      /^one\nKilled\nwent on\nWARNING: Memory ran out, and the kernel killed a process of this phase: perl \(process \d+\)\. A job may use 64\.0 MiB here \(job_memory_max\)\.\n$/,
    );
    assertEquals(lab.output(second, "cleanup"), "20000000");
    assertEquals(lab.statuses(second), { test: 0, cleanup: 0 });
    await house.end("SIGTERM");
    assertMatch(house.said, /Phase test ended .* memory_peak="6\d\.\d MiB/);
    assertMatch(house.said, /Phase cleanup ended .* memory_peak="[234]\d\.\d MiB/);
    assert(!house.said.includes("cannot keep jobs"), house.said);
  },
);

Deno.test("an agent without control groups says once that it keeps no limits", async () => {
  await using house = await House.open({ job_memory_max: "1 GiB", job_pids_max: 100 });
  const { lab } = house;
  await house.configure({ test_command: "echo one" });
  const jobId = lab.submit({ test_data: { a: 1 } });
  house.start({ controlGroups: "none" });
  await lab.complete(jobId);
  await house.end("SIGTERM");
  assertEquals(lab.output(jobId, "test"), "one\n");
  const said = house.said.split("\n").filter((line) => line.includes("job_memory_max"));
  assertEquals(said.length, 1, house.said);
  assertStringIncludes(
    said[0] ?? "",
    "The agent cannot keep jobs within job_memory_max and job_pids_max: there are no control groups: ",
  );
});
