/** Jobs that outlive the agent, with real processes: killed, told to hand over, rebooted. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "node:path";
import { compileSecrets } from "../../lib/process/redactor.ts";
import { PHASES } from "../../lib/phases.ts";
import { House } from "../support/house.ts";
import { isRunning } from "../support/processes.ts";

const SECRET = "open sesame ä€😀";
const MASKED = compileSecrets([SECRET]).redactText(SECRET);

/** Lines of a log that is whole. */
function lines(count: number): string {
  return Array.from({ length: count }, (_, i) => `line ${i + 1} ${MASKED}\n`).join("");
}

/** Prints `count` lines with the secret, cut in its middle, and notes that it runs. */
function printing(house: { truth: string }, count: number, pause: string): string {
  return `echo begin >>${house.truth}; i=0; while [ $i -lt ${count} ]; do i=$((i + 1)); ` +
    `printf 'line %s %s' $i "\${KEY%?????}"; ${pause}; printf '%s\\n' "\${KEY#"\${KEY%?????}"}"; done; ` +
    `echo end >>${house.truth}; exit 5`;
}

Deno.test("an agent that is killed or told to hand over again and again within one job disturbs nothing of it", async () => {
  const kills = Number(Deno.env.get("TAKEOVER_KILLS") ?? 25);
  const count = kills * 40;
  const truth = await Deno.makeTempFile();
  await using house = await House.open({
    test_command: printing({ truth }, count, "sleep 0.02"),
    cleanup_command: `echo cleanup >>${truth}; echo cleaned`,
  });
  const { lab } = house;
  const jobId = lab.submit({ test_data: { secrets: { KEY: SECRET } }, global_timeout: 10_000 });
  for (let kill = 0; kill < kills; kill++) {
    house.start();
    const taken = kill === 0 ? "Phase test begins" : "Phase test goes on";
    if (kill % 3 === 0 || kill === 0) {
      await lab.eventually(() => house.said.split(taken).length > 1, "the test runs");
    }
    // At any moment: while the process starts, while it takes up the job, while it delivers.
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 900));
    await house.end(Math.random() < 0.5 ? "SIGKILL" : "SIGHUP");
  }
  house.start();
  await lab.until(() => lab.sandbox.state(jobId) === "complete", "complete");
  assertEquals(lab.output(jobId, "test"), lines(count), house.said);
  assertEquals(lab.output(jobId, "cleanup"), "cleaned\n");
  assertEquals(lab.statuses(jobId), { test: 5, cleanup: 0 });
  assertEquals(await Deno.readTextFile(truth), "begin\nend\ncleanup\n");
  await Deno.remove(truth);
});

for (const signal of ["SIGKILL", "SIGHUP"] as const) {
  Deno.test(`${signal} in any phase leaves it running, and the next process takes it up`, async () => {
    const phases = PHASES;
    const truth = await Deno.makeTempFile();
    const commands: Record<string, string> = {};
    await using house = await House.open({});
    for (const phase of phases) {
      commands[`${phase}_command`] = `echo ${phase} $$ >>${truth}; echo one; ` +
        `until [ -e ${house.at(`go-${phase}`)} ]; do sleep 0.02; done; echo two`;
    }
    const config = JSON.parse(await Deno.readTextFile(house.file));
    await Deno.writeTextFile(house.file, JSON.stringify({ ...config, ...commands }));
    const { lab } = house;
    const parent = lab.submit({ job_queue: "elsewhere" });
    const data = Object.fromEntries(
      phases.filter((phase) => !["setup", "cleanup"].includes(phase))
        .map((phase) => [`${phase}_data`, { a: 1 }]),
    );
    const jobId = lab.submit({ ...data, parent_job_id: parent });
    house.start();
    for (const phase of phases) {
      await lab.eventually(
        async () => (await Deno.readTextFile(truth)).includes(`${phase} `),
        `${phase} runs:\n${house.said}`,
      );
      const status = await house.end(signal);
      assertEquals(status, signal === "SIGHUP" ? 1 : 137, house.said);
      const [, pid] = new RegExp(`${phase} (\\d+)`).exec(await Deno.readTextFile(truth)) ?? [];
      assertEquals(await isRunning(Number(pid)), true, phase);
      await house.touch(`go-${phase}`);
      house.start();
      if (phase !== "allocate") continue;
      // The hand-shake is a step, too.
      await lab.until(() => lab.sandbox.state(jobId) === "allocated", "allocated");
      await house.end(signal);
      house.start();
      await lab.eventually(() => house.said.includes("The device is allocated"), "it waits again");
      lab.sandbox.cancel(parent);
    }
    await lab.complete(jobId);
    for (const phase of phases) {
      const log = lab.sandbox.log(jobId, "output", phase);
      assertEquals(log.split("\n").slice(3).join("\n"), "one\ntwo\n", phase);
    }
    assertEquals(lab.statuses(jobId), Object.fromEntries(phases.map((phase) => [phase, 0])));
    const began = (await Deno.readTextFile(truth)).trim().split("\n").map((line) =>
      line.split(" ")[0]
    );
    assertEquals(began, [...phases]);
    await Deno.remove(truth);
  });
}

Deno.test("limits go on counting while no agent is there", async () => {
  await using house = await House.open({ test_command: "echo one; sleep 1000" });
  const { lab } = house;
  const clockFactor = 20;
  const limits = { global_timeout: 100, output_timeout: 90 };
  const jobId = lab.submit({ ...limits, test_data: { a: 1 } });
  house.start({ clockFactor });
  await lab.until(() => lab.output(jobId, "test") === "one\n", "the test runs");
  await house.end("SIGKILL");
  await new Promise((resolve) => setTimeout(resolve, limits.output_timeout * 1000 / clockFactor));
  house.start({ clockFactor });
  await lab.complete(jobId);
  assertMatch(
    lab.output(jobId, "test"),
    /^one\nERROR: (Output|Global) timeout reached! \(\d+s\)\n$/,
  );
  assertEquals(lab.statuses(jobId).test, 241);
});

Deno.test("a job that takes the agent down three times in a row is ended as interrupted", async () => {
  await using house = await House.open({
    test_command: "echo one; sleep 1000",
    cleanup_command: "echo cleaned",
  });
  const { lab } = house;
  const jobId = lab.submit({ test_data: { a: 1 } });
  house.start();
  await lab.until(() => lab.output(jobId, "test") === "one\n", "the test runs");
  for (let crash = 1; crash <= 3; crash++) {
    await house.end("SIGKILL");
    assertEquals(lab.sandbox.state(jobId), "test", `after ${crash}`);
    house.start();
    if (crash === 3) break;
    await lab.eventually(
      () => house.said.split("Phase test goes on").length === crash + 1,
      "taken up",
    );
  }
  await lab.complete(jobId);
  assertEquals(lab.output(jobId, "test"), "one\nThe agent was interrupted during test\n");
  assertEquals(lab.output(jobId, "cleanup"), "cleaned\n");
  assertEquals(lab.statuses(jobId), { test: 100, cleanup: 0 });
});

Deno.test("after a reboot the job is ended, cleaned up, and reported as interrupted", async () => {
  await using house = await House.open({
    test_command: "echo one; sleep 1000",
    cleanup_command: "echo cleaned",
  });
  const { lab } = house;
  const jobId = lab.submit({ test_data: { a: 1 } });
  house.start({ bootId: "before" });
  await lab.until(() => lab.output(jobId, "test") === "one\n", "the test runs");
  await house.end("SIGKILL");
  house.start({ bootId: "after" });
  await lab.complete(jobId);
  assertEquals(lab.output(jobId, "test"), "one\nThe agent was interrupted during test\n");
  assertEquals(lab.output(jobId, "cleanup"), "cleaned\n");
  assertEquals(lab.statuses(jobId), { test: 100, cleanup: 0 });
});

Deno.test("a second reboot during cleanup has the cleanup run again", async () => {
  await using house = await House.open({});
  const config = JSON.parse(await Deno.readTextFile(house.file));
  config.test_command = "echo one; sleep 1000";
  config.cleanup_command = `echo $$ >>${house.at("pids")}; echo cleaning; ` +
    `until [ -e ${house.at("go")} ]; do sleep 0.02; done; echo cleaned`;
  await Deno.writeTextFile(house.file, JSON.stringify(config));
  const { lab } = house;
  const jobId = lab.submit({ test_data: { a: 1 } });
  house.start({ bootId: "1" });
  await lab.until(() => lab.output(jobId, "test") === "one\n", "the test runs");
  await house.end("SIGKILL");
  house.start({ bootId: "2" });
  await lab.until(() => lab.output(jobId, "cleanup") === "cleaning\n", "it cleans up");
  await house.end("SIGKILL");
  // All that a reboot does to it.
  const [pid] = (await Deno.readTextFile(house.at("pids"))).split("\n");
  const parts = await new Deno.Command("pgrep", { args: ["-f", jobId] }).output();
  for (const part of new TextDecoder().decode(parts.stdout).split("\n").filter(Boolean)) {
    try {
      Deno.kill(Number(part), "SIGKILL");
    } catch {
      // Gone already.
    }
  }
  try {
    Deno.kill(-Number(pid), "SIGKILL");
  } catch {
    // Gone already.
  }
  await house.touch("go");
  house.start({ bootId: "3" });
  await lab.complete(jobId);
  const cleanup = lab.output(jobId, "cleanup");
  assertEquals(
    cleanup,
    "cleaning\nCleanup is run again, since it was interrupted.\ncleaning\ncleaned\n",
  );
  assertEquals(lab.statuses(jobId), { test: 100, cleanup: 0 });
});

Deno.test("handing over takes less than 2 s, also while the agent ends a phase or waits for the server", async () => {
  await using house = await House.open({
    cancel_grace: 60,
    test_command: 'trap "" TERM; echo one; while :; do sleep 1; done',
    cleanup_command: "echo cleaned",
  });
  const { lab } = house;
  const jobId = lab.submit({ test_data: { a: 1 } });
  house.start();
  await lab.until(() => lab.output(jobId, "test") === "one\n", "the test runs");
  lab.sandbox.cancel(jobId);
  const records = join(lab.config.results_basedir, `agent-${lab.config.agent_id}`, "jobs", jobId);
  await lab.eventually(
    async () => (await Deno.readTextFile(join(records, "record"))).includes('"ending"'),
    "it is being ended",
  );
  const begun = performance.now();
  assertEquals(await house.end("SIGHUP"), 1, house.said);
  const seconds = (performance.now() - begun) / 1000;
  assert(seconds < 10, `${seconds} s`); // 2 s, on a host that has nothing else to do.
  house.start({ clockFactor: 60 });
  await lab.complete(jobId);
  assertEquals(lab.output(jobId, "test"), "one\nJob cancellation was requested, exiting.\n");
  assertEquals(lab.statuses(jobId), { test: 247, cleanup: 0 });
});
