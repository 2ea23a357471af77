import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { Lab } from "../support/lab.ts";

const ALL_TRUE = {
  setup_command: "true",
  provision_command: "true",
  firmware_update_command: "true",
  test_command: "true",
  reserve_command: "true",
  cleanup_command: "true",
};

const WEBHOOK = { job_status_webhook: "http://127.0.0.1:9/hook" };

Deno.test("the phases run in order, and the server ends with their statuses and 'complete'", async () => {
  const say = (phase: string) => `echo ${phase} >> ../order`;
  await using lab = await Lab.open({
    config: {
      setup_command: say("setup"),
      provision_command: say("provision"),
      firmware_update_command: say("firmware_update"),
      test_command: say("test"),
      reserve_command: say("reserve"),
      cleanup_command: say("cleanup"),
    },
  });
  const jobId = await lab.run({
    provision_data: { url: "x" },
    firmware_update_data: { version: "latest" },
    test_data: { test_cmds: "x" },
    reserve_data: { ssh_keys: ["lp:a"] },
  });
  const order = await Deno.readTextFile(join(lab.config.execution_basedir, "order"));
  const phases = ["setup", "provision", "firmware_update", "test", "reserve", "cleanup"];
  assertEquals(order.trim().split("\n"), phases);
  assertEquals(lab.statuses(jobId), Object.fromEntries(phases.map((phase) => [phase, 0])));
});

Deno.test("each phase opens with a banner of three lines", async () => {
  await using lab = await Lab.open({ config: { test_command: "echo hello" } });
  const jobId = await lab.run({ test_data: { test_cmds: "x" } });
  assertEquals(
    lab.sandbox.log(jobId, "output", "test"),
    "**********************************************\n" +
      "* Starting testflinger test phase on agent-1 *\n" +
      "**********************************************\nhello\n",
  );
});

Deno.test("a phase without a command, without data, with empty data or with skip is skipped", async () => {
  await using lab = await Lab.open({ config: { ...ALL_TRUE, setup_command: "" } });
  const jobId = await lab.run({
    firmware_update_data: {},
    provision_data: null,
    test_data: { test_cmds: "x" },
    reserve_data: { skip: true },
  });
  assertEquals(lab.statuses(jobId), { test: 0, cleanup: 0 });
});

Deno.test("standard output and standard error arrive as one stream in order", async () => {
  await using lab = await Lab.open({
    config: { test_command: "echo 1; echo 2 >&2; echo 3; echo 4 >&2" },
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.output(jobId, "test"), "1\n2\n3\n4\n");
});

Deno.test("a command finds its job, its folder, the configuration and its secrets", async () => {
  await using lab = await Lab.open({
    config: {
      provision_type: "muxpi",
      provision_command:
        `echo "$agent_id $provision_type [$TOKEN]"; cat testflinger.json | wc -l; ` +
        "stat -c %a . testflinger.json; ls; cat device-connector-error.json testflinger-outcome.json",
      test_command: `echo "$server_address [$TOKEN]"; cat; pwd; test "$TOKEN" = tea-and-biscuits`,
    },
  });
  const jobId = await lab.run({
    provision_data: { url: "x" },
    test_data: { secrets: { TOKEN: "tea-and-biscuits", EMPTY: "" } },
  });
  assertEquals(
    lab.output(jobId, "provision"),
    "agent-1 muxpi []\n0\n700\n600\ndevice-connector-error.json\nprovision.log\n" +
      "testflinger-outcome.json\ntestflinger.json\n{}",
  );
  const [address, folder] = lab.output(jobId, "test").split("\n");
  assertMatch(address ?? "", /^http:\/\/127\.0\.0\.1:\d+ \[\*\*[0-9a-f]{6}\*\*\]$/);
  assertEquals(folder, join(lab.config.execution_basedir, jobId));
  assertEquals(lab.statuses(jobId), { provision: 0, test: 0 });
});

Deno.test("a failed phase ends the job, but for a test: the device can still be reserved", async () => {
  await using lab = await Lab.open({ config: { ...ALL_TRUE, test_command: "exit 3" } });
  const failedTest = await lab.run({
    ...WEBHOOK,
    test_data: { a: 1 },
    reserve_data: { ssh_keys: ["lp:a"] },
  });
  assertEquals(lab.statuses(failedTest), { setup: 0, test: 3, reserve: 0, cleanup: 0 });

  await using other = await Lab.open({ config: { ...ALL_TRUE, provision_command: "exit 4" } });
  const failedProvision = await other.run({
    ...WEBHOOK,
    provision_data: { url: "x" },
    test_data: { a: 1 },
  });
  assertEquals(other.statuses(failedProvision), { setup: 0, provision: 4, cleanup: 0 });
  await other.until(() => other.events(failedProvision).includes("job_end"), "the last event");
  assertEquals(other.sandbox.events(failedProvision).at(-1)?.detail, "provision_fail");
});

Deno.test("a command that a signal ended has the status 256 minus the signal's number", async () => {
  await using lab = await Lab.open({ config: { test_command: "kill -9 $$" } });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.statuses(jobId), { test: 247 });
});

Deno.test("the webhook is told of every phase, also of those that are skipped", async () => {
  await using lab = await Lab.open({ config: { ...ALL_TRUE, reserve_command: "" } });
  const jobId = await lab.run({ ...WEBHOOK, test_data: { a: 1 } });
  await lab.until(() => lab.events(jobId).includes("job_end"), "the last event");
  assertEquals(lab.events(jobId), [
    "job_start",
    "setup_start",
    "setup_success",
    "provision_start",
    "provision_success",
    "firmware_update_start",
    "firmware_update_success",
    "test_start",
    "test_success",
    "allocate_start",
    "allocate_success",
    "reserve_start",
    "reserve_success",
    "cleanup_start",
    "cleanup_success",
    "job_end",
  ]);
  assertEquals(lab.events(jobId).length, 16);
  const [start, ...others] = lab.sandbox.events(jobId);
  assertEquals(start?.detail, `${lab.served.url}/jobs/${jobId}`);
  assertEquals(others.at(-1)?.detail, "normal_exit");
});

Deno.test("a provision that is skipped counts as a success in the provision log", async () => {
  await using lab = await Lab.open({ config: { provision_command: "true", test_command: "true" } });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(
    lab.sandbox.provisionLogs("agent-1").map(({ job_id, exit_code, detail }) => ({
      job_id,
      exit_code,
      detail,
    })),
    [{ job_id: jobId, exit_code: 0, detail: "provision_success" }],
  );
});

Deno.test("between the start of a provision and its failure the webhook is told of nothing else", async () => {
  await using lab = await Lab.open({ config: { provision_command: "exit 1" } });
  const jobId = await lab.run({ ...WEBHOOK, provision_data: { url: "x" } });
  await lab.until(() => lab.events(jobId).includes("job_end"), "the last event");
  const events = lab.events(jobId);
  assertEquals(events.indexOf("provision_fail"), events.indexOf("provision_start") + 1);
});

Deno.test("what a connector says of its failure is the detail of the event", async () => {
  const error = JSON.stringify({
    provision_exception_info: {
      exception_name: "ProvisioningError",
      exception_message: "no space",
      exception_cause: "OSError('28')",
    },
  });
  await using lab = await Lab.open({
    config: {
      provision_command: `echo '${
        error.replaceAll("'", `'\\''`)
      }' > device-connector-error.json; exit 1`,
    },
  });
  const jobId = await lab.run({ ...WEBHOOK, provision_data: { url: "x" } });
  await lab.until(() => lab.events(jobId).includes("job_end"), "the last event");
  assertEquals(
    lab.sandbox.events(jobId).find((event) => event.event_name === "provision_fail")?.detail,
    "ProvisioningError: no space caused by OSError('28')",
  );
  assertEquals(
    lab.sandbox.provisionLogs("agent-1").map(({ job_id, exit_code, detail }) => ({
      job_id,
      exit_code,
      detail,
    })),
    [{ job_id: jobId, exit_code: 1, detail: "provision_fail" }],
  );
});

Deno.test("what a connector writes into device-info.json is in the result", async () => {
  const info = `{"device_info": {"device_ip": "10.1.1.1", "agent_name": "a1"}}`;
  await using lab = await Lab.open({
    config: { provision_command: `printf '%s' '${info}' > device-info.json` },
  });
  const jobId = await lab.run({ provision_data: { url: "x" } });
  assertEquals(lab.sandbox.result(jobId)?.device_info, { device_ip: "10.1.1.1", agent_name: "a1" });
});

Deno.test("a serial log is on the server while its phase runs, not only after it", async () => {
  await using lab = await Lab.open({
    config: {
      provision_command: "echo booting > provision-serial.log; " +
        "while [ ! -e ../go ]; do sleep 0.02; done; echo done >> provision-serial.log",
    },
  });
  const jobId = lab.submit({ provision_data: { url: "x" } });
  lab.start();
  await lab.until(
    () => lab.sandbox.log(jobId, "serial", "provision") === "booting\n",
    "the serial log of the running phase",
  );
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.complete(jobId);
  assertEquals(lab.sandbox.log(jobId, "serial", "provision"), "booting\ndone\n");
});

Deno.test("artifacts are on the server as a tar.gz when the job is complete, links as links", async () => {
  await using lab = await Lab.open({
    config: {
      test_command:
        "mkdir -p artifacts/sub; echo one > artifacts/sub/one; ln -s /etc/passwd artifacts/link",
    },
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  const archive = join(lab.folder, "artifacts.tar.gz");
  await Deno.writeFile(archive, lab.sandbox.artifact(jobId) ?? new Uint8Array());
  const { stdout } = await new Deno.Command("tar", { args: ["tzvf", archive] }).output();
  const listing = new TextDecoder().decode(stdout);
  assertStringIncludes(listing, "artifacts/sub/one");
  assertStringIncludes(listing, "artifacts/link -> /etc/passwd");
});

Deno.test("an artifact that cannot be packed is named in the job's log, the others arrive", async () => {
  await using lab = await Lab.open({
    config: { test_command: "mkdir artifacts; mkfifo artifacts/pipe; echo x > artifacts/good" },
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertStringIncludes(
    lab.sandbox.log(jobId, "output"),
    `WARNING: The artifact "artifacts/pipe" is not delivered whole`,
  );
  assert(lab.sandbox.artifact(jobId) !== undefined);
});

Deno.test("when a job is over, its folder is gone and so is the agent's note of it", async () => {
  await using lab = await Lab.open({ config: ALL_TRUE });
  const jobId = await lab.run({ test_data: { a: 1 } });
  await lab.until(() => lab.sandbox.agent("agent-1")?.job_id === "", "the agent is free");
  await lab.eventually(
    () =>
      [...Deno.readDirSync(join(lab.config.results_basedir, "agent-agent-1", "jobs"))].length === 0,
    "the journal is removed",
  );
  assertEquals(lab.inExecutionBasedir(), []);
  assertEquals(lab.sandbox.agent("agent-1")?.state, "waiting");
  assertEquals(lab.sandbox.state(jobId), "complete");
});

const FORMS = {
  "in capitals": "A1B2C3D4-0000-4000-8000-0123456789AB",
  "without dashes": "a1b2c3d4000040008000012345678900",
  "in braces": "{a1b2c3d4-0000-4000-8000-0123456789ac}",
  "as a URN": "urn:uuid:a1b2c3d4-0000-4000-8000-0123456789ad",
};
for (const [form, id] of Object.entries(FORMS)) {
  Deno.test(`a job id that the server writes ${form} is posted back as it came`, async () => {
    await using lab = await Lab.open({ config: { test_command: "pwd", cleanup_command: "true" } });
    const jobId = await lab.run({ job_id: id, test_data: { a: 1 } });
    assertEquals(jobId, id);
    assertEquals(lab.output(id, "test"), `${join(lab.config.execution_basedir, id)}\n`);
    assertEquals(lab.statuses(id), { test: 0, cleanup: 0 });
  });
}

Deno.test("two agents that are given the same job leave each other's folders alone", async () => {
  const config = {
    test_command: "echo here > mine; touch ../begun-$agent_id; " +
      "while [ ! -e ../go-$agent_id ]; do sleep 0.02; done; cat mine",
  };
  await using one = await Lab.open({ config });
  const run = one.config.execution_basedir;
  await using two = await Lab.open({
    config: { ...config, agent_id: "agent-2", execution_basedir: run },
  });
  const exists = (name: string) => Deno.lstat(join(run, name)).then(() => true, () => false);
  const jobId = one.submit({ test_data: { a: 1 } });
  two.submit({ job_id: jobId, test_data: { a: 1 } });
  one.start();
  await one.eventually(() => exists("begun-agent-1"), "the first agent's test runs");
  two.start();
  await two.eventually(() => exists("begun-agent-2"), "the second agent's test runs");
  await Deno.writeTextFile(join(run, "go-agent-2"), "");
  await two.complete(jobId);
  assertEquals(two.output(jobId, "test"), "here\n");
  assertEquals(two.logged("warning").filter((line) => line.includes("Another agent")).length, 1);
  await Deno.writeTextFile(join(run, "go-agent-1"), "");
  await one.complete(jobId);
  assertEquals(one.output(jobId, "test"), "here\n");
  const names = () => one.inExecutionBasedir().sort().join(" ");
  await one.eventually(
    () => names() === "begun-agent-1 begun-agent-2 go-agent-1 go-agent-2",
    "nothing but what the tests have left is there",
  );
});

Deno.test("output that is not UTF-8 becomes U+FFFD, and a character split between writes is whole", async () => {
  await using lab = await Lab.open({
    config: {
      test_command: String.raw`printf 'a\377b '; printf '\303'; printf '\244\n'`,
    },
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.output(jobId, "test"), "a\ufffdb ä\n");
});

Deno.test("a job with unknown fields and an unreadable time stamp runs, and connectors see them all", async () => {
  await using lab = await Lab.open({ config: { test_command: "cat testflinger.json" } });
  const job = {
    job_id: crypto.randomUUID(),
    test_data: { a: 1 },
    brand_new: { x: [1] },
    started_at: "2026-01-01T00:00:00+00:00Z",
  };
  const jobId = await lab.run(job);
  const seen = JSON.parse(lab.output(jobId, "test"));
  assertEquals(seen.brand_new, { x: [1] });
});
