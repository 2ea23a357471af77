import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { Lab } from "../support/lab.ts";
import { isRunning } from "../support/processes.ts";

const WEBHOOK = { job_status_webhook: "http://127.0.0.1:9/hook" };
/** Longer than any test; what it holds is ended by the agent. */
const FOREVER = "sleep 1000";

/** A command that starts a grandchild that ignores TERM, names it in a file, and hangs. */
const STUBBORN = `sh -c 'trap "" TERM; echo $$ > ../grandchild; while :; do ${FOREVER}; done' & ` +
  `while [ ! -s ../grandchild ]; do sleep 0.01; done; echo ready; trap "" TERM; wait; ${FOREVER}`;

async function grandchild(lab: Lab): Promise<number> {
  return Number(await Deno.readTextFile(join(lab.config.execution_basedir, "grandchild")));
}

Deno.test("a phase that takes longer than its global timeout is ended, with a line that says so", async () => {
  const ends: unknown[] = [];
  await using lab = await Lab.open({
    config: { setup_command: `echo begun; ${FOREVER}`, cleanup_command: "echo cleaned" },
    sink: (event) => {
      if (event.type === "job_ended") ends.push([event.failed, event.timedOut]);
    },
  });
  const jobId = await lab.run({ ...WEBHOOK, global_timeout: 2, test_data: { a: 1 } });
  assertEquals(lab.output(jobId, "setup"), "begun\nERROR: Global timeout reached! (2s)\n");
  assertEquals(lab.statuses(jobId), { setup: 256 - 15, cleanup: 0 });
  await lab.until(() => lab.events(jobId).includes("job_end"), "the last event");
  assertEquals(
    lab.events(jobId).slice(1, 4),
    ["setup_start", "global_timeout", "setup_fail"],
  );
  await lab.until(() => ends.length > 0, "its end is told");
  assertEquals(ends, [["setup", true]]);
});

Deno.test("a cleanup that takes longer than the global timeout has the same event", async () => {
  await using lab = await Lab.open({ config: { cleanup_command: FOREVER, global_timeout: 1 } });
  const jobId = await lab.run({ ...WEBHOOK });
  await lab.until(() => lab.events(jobId).includes("job_end"), "the last event");
  assertEquals(
    lab.events(jobId).slice(-4),
    ["cleanup_start", "global_timeout", "cleanup_fail", "job_end"],
  );
});

Deno.test("status 46 of a cleanup is the loss of the device, with what the connector says of it", async () => {
  const error = {
    cleanup_exception_info: { exception_name: "RecoveryError", exception_message: "no power" },
  };
  await using lab = await Lab.open({
    config: {
      cleanup_command: `echo '${JSON.stringify(error)}' >device-connector-error.json; exit 46`,
    },
  });
  const jobId = await lab.run({ ...WEBHOOK });
  await lab.until(() => lab.events(jobId).includes("job_end"), "the last event");
  const { event_name, detail } = lab.sandbox.events(jobId).at(-2) ?? {};
  assertEquals([event_name, detail], ["recovery_fail", "RecoveryError: no power"]);
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "offline", "it is offline");
});

Deno.test("the configuration's limit counts when the job asks for more", async () => {
  await using lab = await Lab.open({ config: { global_timeout: 2, setup_command: FOREVER } });
  const jobId = await lab.run({ global_timeout: 1000 });
  assertStringIncludes(lab.output(jobId, "setup"), "ERROR: Global timeout reached! (2s)");
});

Deno.test("a test that is silent for longer than its output timeout is ended", async () => {
  await using lab = await Lab.open({ config: { test_command: `echo begun; ${FOREVER}` } });
  const jobId = await lab.run({ ...WEBHOOK, output_timeout: 2, test_data: { a: 1 } });
  assertEquals(lab.output(jobId, "test"), "begun\nERROR: Output timeout reached! (2s)\n");
  await lab.until(() => lab.events(jobId).includes("job_end"), "the last event");
  assertEquals(lab.events(jobId).includes("output_timeout"), true);
});

Deno.test("after a cancellation the whole process group is dead and cleanup has run", async () => {
  await using lab = await Lab.open({
    config: { test_command: STUBBORN, cleanup_command: "echo cleaned", reserve_command: "true" },
  });
  const jobId = lab.submit({ ...WEBHOOK, test_data: { a: 1 }, reserve_data: { ssh_keys: ["x"] } });
  lab.start();
  await lab.until(() => lab.output(jobId, "test").includes("ready"), "the test runs");
  const pid = await grandchild(lab);
  lab.sandbox.cancel(jobId);
  await lab.complete(jobId);
  assertEquals(await isRunning(pid), false);
  assertStringIncludes(lab.output(jobId, "test"), "Job cancellation was requested, exiting.\n");
  assertEquals(lab.output(jobId, "cleanup"), "cleaned\n");
  assertEquals(lab.statuses(jobId), { test: 256 - 9, cleanup: 0 });
  await lab.until(() => lab.events(jobId).includes("job_end"), "the last event");
  assertEquals(lab.events(jobId).filter((name) => name === "cancelled").length, 1);
  assertEquals(lab.sandbox.events(jobId).at(-1)?.detail, "cancelled");
});

Deno.test("a provision is not interrupted by a cancellation, but nothing comes after it but cleanup", async () => {
  await using lab = await Lab.open({
    config: {
      provision_command: "echo begun; while [ ! -e ../go ]; do sleep 0.02; done; echo whole",
      test_command: "true",
      cleanup_command: "true",
    },
  });
  const jobId = lab.submit({ ...WEBHOOK, provision_data: { url: "x" }, test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.output(jobId, "provision").includes("begun"), "provision runs");
  lab.sandbox.cancel(jobId);
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.complete(jobId);
  assertEquals(lab.output(jobId, "provision"), "begun\nwhole\n");
  assertEquals(lab.statuses(jobId), { provision: 0, cleanup: 0 });
  await lab.until(() => lab.events(jobId).includes("job_end"), "the last event");
  assertEquals(lab.events(jobId).includes("cancelled"), true);
});

Deno.test("the state of a cancelled job is not overwritten until it is complete", async () => {
  await using lab = await Lab.open({
    config: { test_command: `echo ready; ${FOREVER}`, cleanup_command: "true" },
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.until(() => lab.output(jobId, "test").includes("ready"), "the test runs");
  const states: (string | undefined)[] = [];
  const watching = lab.sandbox.waitFor(() => {
    if (states.at(-1) !== lab.sandbox.state(jobId)) states.push(lab.sandbox.state(jobId));
    return states.at(-1) === "complete";
  });
  lab.sandbox.cancel(jobId);
  await watching;
  assertEquals(states, ["test", "cancelled", "complete"]);
});

Deno.test("a job that was cancelled before it began runs nothing but cleanup", async () => {
  await using lab = await Lab.open({
    config: { setup_command: "echo never", cleanup_command: "echo cleaned" },
  });
  const jobId = lab.submit({ ...WEBHOOK });
  // It is handed out all the same: the cancellation came while the answer was on its way.
  lab.sandbox.intercept(async (request, proceed) => {
    if (!request.url.includes("/v1/job?")) return undefined;
    const answer = await proceed();
    lab.sandbox.cancel(jobId);
    return answer;
  });
  lab.start();
  await lab.complete(jobId);
  assertEquals(lab.statuses(jobId), { cleanup: 0 });
});

Deno.test("processes that left their group, and daemons, are ended with the job", async () => {
  await using lab = await Lab.open({
    config: {
      test_command: `setsid sh -c 'echo $$ > ../grandchild; ${FOREVER}' > /dev/null 2>&1 & ` +
        "while [ ! -s ../grandchild ]; do sleep 0.01; done",
      cleanup_command: 'kill -0 "$(cat ../grandchild)" && echo still there',
    },
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.output(jobId, "cleanup"), "still there\n");
  assertEquals(await isRunning(await grandchild(lab)), false);
});

Deno.test("a background process that holds the output does not delay the end of its phase", async () => {
  await using lab = await Lab.open({ config: { test_command: `${FOREVER} & echo done` } });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.output(jobId, "test"), "done\n");
  assertEquals(lab.statuses(jobId), { test: 0 });
});

Deno.test("status 46 takes the agent offline, with the job's id in the comment", async () => {
  await using lab = await Lab.open({
    config: { provision_command: "exit 46", cleanup_command: "true" },
  });
  const jobId = await lab.run({ ...WEBHOOK, provision_data: { url: "x" } });
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "offline", "the agent is offline");
  assertEquals(
    lab.sandbox.agent("agent-1")?.comment,
    `Set to offline by agent. Recovery failed during job '${jobId}' execution.`,
  );
  await lab.until(() => lab.events(jobId).includes("job_end"), "the last event");
  assertEquals(lab.events(jobId).includes("recovery_fail"), true);
  assertEquals(lab.sandbox.provisionLogs("agent-1")[0]?.detail, "recovery_fail");
  const next = lab.submit({ test_data: { a: 1 } });
  lab.sandbox.setAgent("agent-1", { state: "waiting", comment: "" });
  await lab.complete(next);
});

Deno.test("an allocated device is kept until the parent job is over", async () => {
  const info = `{"device_info": {"device_ip": "10.1.1.1"}}`;
  await using lab = await Lab.open({
    // The established connectors end every allocate with 1; the hand-shake takes place all the same.
    config: { allocate_command: `printf '%s' '${info}' > device-info.json; exit 1` },
  });
  const parent = lab.sandbox.submit({ job_queue: "elsewhere" });
  const jobId = lab.submit({ parent_job_id: parent, allocate_data: { allocate: true } });
  lab.start();
  await lab.until(() => lab.sandbox.state(jobId) === "allocated", "the job is allocated");
  assertEquals(lab.sandbox.result(jobId)?.device_info, { device_ip: "10.1.1.1" });
  lab.sandbox.cancel(parent);
  await lab.complete(jobId);
  assertEquals(lab.statuses(jobId), { allocate: 1 });
});

Deno.test("secrets are masked in the log, in events and in device info, also when they are split", async () => {
  await using lab = await Lab.open({
    config: {
      provision_command: "true",
      test_command:
        `printf '%s' "$KEY" | dd bs=1 2>/dev/null; echo; printf '%s' "$KEY" | base64; ` +
        `printf '{"test_exception_info": {"exception_name": "E", "exception_message": "%s", ` +
        `"exception_cause": null}}' "$KEY" > device-connector-error.json; ` +
        `printf '{"device_info": {"note": "%s"}}' "$KEY" > device-info.json; exit 1`,
    },
  });
  const secret = "sesame-open-the-door";
  const jobId = await lab.run({ ...WEBHOOK, test_data: { secrets: { KEY: secret } } });
  await lab.until(() => lab.events(jobId).includes("job_end"), "the last event");
  const everything = JSON.stringify([
    lab.sandbox.log(jobId, "output"),
    lab.sandbox.result(jobId),
    lab.sandbox.events(jobId),
    lab.log.lines,
  ]);
  assertEquals(everything.includes(secret), false);
  assertEquals(everything.includes(btoa(secret)), false);
  assertEquals(lab.output(jobId, "test").split("\n")[0], "**951668**");
});
