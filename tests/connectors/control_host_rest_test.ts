/** Provisioning by the service of a control host: 06-control-host-rest, and what may go wrong. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { Stopped } from "../../connectors/support/errors.ts";
import {
  ControlHostService,
  entry,
  provisionWith,
  type ServicePlay,
} from "./support/control_host_service.ts";
import { Lab, type Run } from "./support/lab.ts";
import { closedPort, until } from "./support/stubs.ts";

const RUNNING = { status: "running" };
const DONE = { status: "completed" };

/** The smallest job that there is. */
const JOB = { preset: "P", agent_ssh_access: false };

interface Outcome {
  readonly run: Run;
  readonly service: ControlHostService;
  /** Pauses in seconds. */
  readonly pauses: number[];
  readonly elapsedS: number;
  readonly failure: Record<string, string | null>;
}

/** One provision with `control_host_iot`, by a service that plays its part. */
async function play(
  part: ServicePlay,
  more: {
    data?: Record<string, unknown>;
    config?: Record<string, unknown>;
    hang?: (service: ControlHostService) => boolean;
    before?: (lab: Lab) => Promise<void>;
  } = {},
): Promise<Outcome> {
  await using lab = await Lab.open();
  await using service = await ControlHostService.open(part);
  lab.hang = () => more.hang?.(service) ?? false;
  await more.before?.(lab);
  const run = await provisionWith(lab, service, {
    connector: "control_host_iot",
    data: { ...JOB, ...more.data },
    ...(more.config === undefined ? {} : { config: more.config }),
  });
  return {
    run,
    service,
    pauses: lab.clock.paused.map((ms) => ms / 1000),
    elapsedS: lab.clock.elapsed / 1000,
    failure: run.code === 0 ? {} : await lab.failure("provision"),
  };
}

/** What the log of the control host came to, in ours. */
function relayed({ run }: Outcome): string[] {
  return run.stderr.split("\n").flatMap((line) =>
    /(\w+): DEVICE CONNECTOR: \[control-host\] (.*)$/.exec(line)?.slice(1).join(" ") ?? []
  );
}

Deno.test("06-control-host-rest 1: one request, its log line by line, and the status at the end", async () => {
  const outcome = await play({
    logs: [{ pieces: [entry("one"), entry("two", { level: "error" })] }],
  });
  const { run, service } = outcome;
  assertEquals(run.code, 0, run.stderr);
  assertEquals(relayed(outcome), ["INFO one", "ERROR two"]);
  assertEquals(service.provisioning, [
    "POST /api/v1/provision",
    "GET /api/v1/provision/j1/logs",
    "GET /api/v1/provision/j1",
  ]);
  const { method, args, kwargs } = service.request;
  assertEquals([method, args], ["ProvisioningIoT", []]);
  assertEquals(kwargs.agent_name, "a1");
  assertEquals(kwargs.device_ip, "10.1.1.1");
  assertEquals(kwargs.cid, null);
  assertEquals(kwargs.reboot_script, ["pdu cycle"]);
  assertEquals([kwargs.poweron_script, kwargs.poweroff_script], [null, null]);
});

Deno.test("06-control-host-rest 2: env.CID becomes cid", async () => {
  const { service } = await play({}, { config: { env: { CID: "202501-1" } } });
  assertEquals(service.request.kwargs.cid, "202501-1");
  assertEquals((await play({})).service.request.kwargs.cid, null);
});

Deno.test("06-control-host-rest 3: the log goes on where it was", async () => {
  const { service, pauses } = await play({
    logs: [{ pieces: [entry("one", { id: "1" })] }],
    statuses: [RUNNING, DONE],
  });
  assertEquals(service.cursors, [undefined, "1"]);
  assertEquals(pauses, [2]);
});

Deno.test("06-control-host-rest 4: the pauses of a control host that says nothing double, up to 30 s", async () => {
  const { run, pauses } = await play({
    statuses: [RUNNING, RUNNING, RUNNING, RUNNING, RUNNING, RUNNING, DONE],
  });
  assertEquals(run.code, 0, run.stderr);
  assertEquals(pauses, [2, 4, 8, 16, 30, 30]);
  assertStringIncludes(run.stderr, "Waiting for the control host to provision the device, 30 s of");
  assertStringIncludes(run.stderr, "it says 'running'");
});

Deno.test("06-control-host-rest 5: an entry brings the pauses back to 2 s", async () => {
  const { pauses } = await play({
    logs: [{}, { pieces: [entry("one")] }, {}],
    statuses: [RUNNING, RUNNING, RUNNING, DONE],
  });
  assertEquals(pauses, [2, 4, 2]);
});

Deno.test("06-control-host-rest 6: an empty id clears the cursor", async () => {
  const { service } = await play({
    logs: [
      { pieces: [entry("one", { id: "1" })] },
      { pieces: [entry("two", { id: "" })] },
    ],
    statuses: [RUNNING, RUNNING, DONE],
  });
  assertEquals(service.cursors, [undefined, "1", undefined]);
});

Deno.test("06-control-host-rest 7: an entry that is not JSON is a warning, and moves no cursor", async () => {
  const { run, service } = await play({
    logs: [{ pieces: ["id: 1\ndata: {broken\n\n"] }],
    statuses: [RUNNING, DONE],
  });
  assertEquals(service.cursors, [undefined, undefined]);
  assertMatch(run.stderr, /WARNING: .*not JSON: \{broken/);
});

Deno.test("06-control-host-rest 8: a failure carries the service's own words", async () => {
  const { run, failure } = await play({
    statuses: [{ status: "failed", error: "Device unreachable" }],
  });
  assertEquals(run.code, 1);
  assertEquals(failure.exception_name, "ProvisioningError");
  assertEquals(failure.exception_message, "Device unreachable");
});

Deno.test("06-control-host-rest 9: an attachment goes along, as it is on disk", async () => {
  const bytes = crypto.getRandomValues(new Uint8Array(50_000));
  const { run, service } = await play({}, {
    before: (lab) => attach(lab, "boot.bin", bytes),
  });
  assertEquals(run.code, 0, run.stderr);
  const [call] = service.calls.filter(({ line }) => line === "POST /api/v1/provision/multipart");
  const form = await new Response(Uint8Array.from(call?.body ?? []), {
    headers: { "content-type": call?.headers["content-type"] ?? "" },
  }).formData();
  assertEquals([...form.keys()], ["request", "boot_binary"]);
  assertEquals(JSON.parse(String(form.get("request"))).method, "ProvisioningIoT");
  const file = form.get("boot_binary");
  if (!(file instanceof File)) throw new Error("this is no file");
  assertEquals(file.name, "boot.bin");
  assertEquals(new Uint8Array(await file.arrayBuffer()), bytes);
});

Deno.test("06-control-host-rest 10: (a) a log that breaks off in the middle is opened again where it was", async () => {
  const outcome = await play({
    logs: [
      { pieces: [entry("one", { id: "1" }), 'id: 2\ndata: {"level": "INF'], end: "reset" },
      { pieces: [entry("two", { id: "2" })] },
    ],
    statuses: [RUNNING, DONE],
  });
  assertEquals(outcome.run.code, 0, outcome.run.stderr);
  assertEquals(relayed(outcome), ["INFO one", "INFO two"]);
  assertEquals(outcome.service.cursors, [undefined, "1"]);
});

Deno.test("06-control-host-rest 10: (b) a log and a status that are refused with 5xx are asked for again", async () => {
  const outcome = await play({
    logs: [{ status: 503 }, { pieces: [entry("one")] }, {}],
    statuses: [500, RUNNING, DONE],
  });
  assertEquals(outcome.run.code, 0, outcome.run.stderr);
  assertEquals(relayed(outcome), ["INFO one"]);
});

Deno.test("06-control-host-rest 11: messages are UTF-8, whatever the service says of itself", async () => {
  const outcome = await play({ logs: [{ pieces: [entry("héllo ☃")] }] });
  assertEquals(relayed(outcome), ["INFO héllo ☃"]);
});

Deno.test("06-control-host-rest 12: a key that is missing is named before anything is asked", async () => {
  for (const key of ["control_host", "agent_name", "device_ip", "reboot_script"]) {
    const { run, service, failure } = await play({}, { config: { [key]: null } });
    assertEquals(run.code, 1);
    assertEquals(failure.exception_name, "ProvisioningError");
    assertStringIncludes(failure.exception_message ?? "", `'${key}'`);
    assertEquals(service.lines, []);
  }
});

Deno.test("06-control-host-rest 13: a service that is never done has a limit, and is asked to give up", async () => {
  const { run, service, failure, elapsedS } = await play({ statuses: [RUNNING] }, {
    data: { provisioning_timeout: 10 },
  });
  assertEquals(run.code, 1);
  assertEquals(elapsedS, 310);
  assertEquals(failure.exception_name, "ProvisioningError");
  assertEquals(
    failure.exception_message,
    "The control host was not done 310 s after its job j1 began: it says 'running'",
  );
  assertEquals(service.lines.at(-1), "DELETE /api/v1/provision/j1");
});

Deno.test("06-control-host-rest 14: a reboot_script of the job counts, and not the configuration's", async () => {
  await using lab = await Lab.open();
  await using service = await ControlHostService.open();
  const run = await provisionWith(lab, service, {
    connector: "control_host_kvm",
    config: { reboot_script: null },
    data: { preset: "x", url: "http://t", reboot_script: ["its own"] },
  });
  assertEquals(run.code, 0, run.stderr);
  assertEquals(service.request.kwargs.reboot_script, ["its own"]);
});

Deno.test("a log that goes on and on has the same limit", async () => {
  await using lab = await Lab.open();
  await using service = await ControlHostService.open({
    logs: [{ pieces: Array.from({ length: 20 }, (_, i) => entry(`${i}`)), end: "hang" }],
    statuses: [RUNNING],
  });
  let told = 0;
  const run = await provisionWith(lab, service, {
    connector: "control_host_iot",
    data: JOB,
    onStderr(text) {
      if (text.includes("[control-host]") && ++told === 5) lab.clock.elapsed += 6_000_000;
    },
  });
  assertEquals(run.code, 1);
  assert(told < 20, "the log was read to its end");
  assertStringIncludes(run.stderr, "was not done 5700 s after its job j1 began: it says 'running'");
});

Deno.test("a log that falls silent is taken for dead after 5 min, and opened again", async () => {
  const outcome = await play({
    logs: [{ pieces: [entry("one", { id: "1" })], end: "hang" }, { pieces: [entry("two")] }],
    statuses: [RUNNING, DONE],
  }, { hang: (service) => service.hanging > 0 && service.cursors.length === 1 });
  assertEquals(outcome.run.code, 0, outcome.run.stderr);
  assertEquals(relayed(outcome), ["INFO one", "INFO two"]);
  assertEquals(outcome.elapsedS, 302);
});

Deno.test("a control host that is restarted in the middle is waited for, and the log goes on", async () => {
  await using lab = await Lab.open();
  const service: ControlHostService = await ControlHostService.open({
    logs: [{ pieces: [entry("one", { id: "1" })], end: "reset" }, { pieces: [entry("two")] }],
    async onCall(line) {
      // It goes away as the first log breaks off; it comes back when it has been missed thrice.
      if (!line.endsWith("/logs") || service.cursors.length > 1) return;
      const { port } = service;
      setTimeout(async () => {
        await service.close();
        await until(() => lab.clock.paused.length >= 3);
        await service.listen(port);
      }, 1);
      await new Promise((resolve) => setTimeout(resolve, 1));
    },
  });
  await using _service = service;
  const run = await provisionWith(lab, service, { connector: "control_host_iot", data: JOB });
  assertEquals(run.code, 0, run.stderr);
  assertStringIncludes(run.stderr, "ECONNREFUSED");
});

Deno.test("a service that is gone for good is given up after ten attempts", async () => {
  await using lab = await Lab.open();
  const service: ControlHostService = await ControlHostService.open({
    onCall(line) {
      if (line.endsWith("/logs")) service.close();
    },
  });
  await using _service = service;
  const run = await provisionWith(lab, service, { connector: "control_host_iot", data: JOB });
  assertEquals(run.code, 1);
  const failure = await lab.failure("provision");
  assertStringIncludes(failure.exception_message ?? "", "after 10 attempts");
  assertEquals(lab.clock.paused.map((ms) => ms / 1000), [2, 4, 8, 16, 30, 30, 30, 30, 30]);
});

Deno.test("a service that does not know the job any more is not asked again", async () => {
  for (const status of [401, 404, 410]) {
    const { run, failure, service } = await play({ statuses: [status] });
    assertEquals(run.code, 1);
    assertStringIncludes(failure.exception_message ?? "", `status ${status}`);
    assertEquals(service.provisioning.length, 4);
    assertEquals(service.lines.at(-1), "DELETE /api/v1/provision/j1");
  }
});

Deno.test("a status that is no status is asked for again", async () => {
  const { run } = await play({ statuses: ["<html>", "[]", '{"state": 1}', DONE] });
  assertEquals(run.code, 0, run.stderr);
  assertStringIncludes(run.stderr, "it answers '<html>'");
});

Deno.test("'queued' and 'pending' are not failures", async () => {
  const { run } = await play({ statuses: [{ status: "queued" }, { status: "pending" }, DONE] });
  assertEquals(run.code, 0, run.stderr);
});

Deno.test("a failure without words names the status that the service gave", async () => {
  for (
    const [answer, message] of [
      [{ status: "aborted" }, "The control host says 'aborted'"],
      [{ status: "failed", error: null }, "The control host says 'failed'"],
      [{ status: "failed", error: { code: 5 } }, '{"code":5}'],
    ] as const
  ) {
    const { failure } = await play({ statuses: [answer] });
    assertEquals(failure.exception_message, message);
  }
});

Deno.test("a request that is refused is not sent again, and says why", async () => {
  for (const status of [400, 409, 500]) {
    const { run, failure, service } = await play({ submit: status });
    assertEquals(run.code, 1);
    assertStringIncludes(failure.exception_message ?? "", `status ${status}: the reason`);
    assertEquals(service.provisioning, ["POST /api/v1/provision"]);
  }
});

Deno.test("a request whose answer is lost is not sent again", async () => {
  const { run, failure, service } = await play({
    onCall: (line) => line === "POST /api/v1/provision" ? new Promise(() => {}) : undefined,
  }, { hang: ({ lines }) => lines.includes("POST /api/v1/provision") });
  assertEquals(run.code, 1);
  assertStringIncludes(failure.exception_message ?? "", "no answer within 30 s");
  assertEquals(service.provisioning, ["POST /api/v1/provision"]);
});

Deno.test("a control host that refuses connections is asked ten times for the first", async () => {
  await using lab = await Lab.open();
  await lab.config({
    agent_name: "a1",
    device_ip: "10.1.1.1",
    reboot_script: ["x"],
    control_host: "127.0.0.1",
    control_host_port: closedPort(),
  });
  await lab.job({ provision_data: JOB });
  const run = await lab.stage("control_host_iot", "provision");
  assertEquals(run.code, 1);
  const failure = await lab.failure("provision");
  assertEquals(failure.exception_name, "ProvisioningError");
  assertStringIncludes(failure.exception_message ?? "", "ECONNREFUSED");
  assertEquals(lab.clock.paused.map((ms) => ms / 1000), [2, 4, 8, 16, 30, 30, 30, 30, 30]);
});

Deno.test("an answer to the request without the id of a job is shown", async () => {
  for (const submit of ["<html>", "{}", '{"job_id": ""}', "[]"]) {
    const { run, failure } = await play({ submit });
    assertEquals(run.code, 1);
    assertStringIncludes(failure.exception_message ?? "", submit);
  }
  const { service } = await play({ submit: '{"job_id": 7}' });
  assertEquals(service.provisioning[1], "GET /api/v1/provision/7/logs");
  const odd = await play({ submit: '{"job_id": "../a b"}' });
  assertEquals(odd.service.provisioning[1], "GET /api/v1/provision/..%2Fa%20b/logs");
});

Deno.test("the request carries Testflinger's job id, so that the service can know it again", async () => {
  const { service } = await play({});
  const call = service.calls.find(({ line }) => line === "POST /api/v1/provision");
  assertEquals(call?.headers["idempotency-key"], "tf-1");
});

Deno.test("what the service logs is shown, whatever it looks like", async () => {
  const data = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`;
  const outcome = await play({
    logs: [{
      pieces: [
        data({ level: "warning", message: "a" }),
        data({ level: "Critical", message: "b" }),
        data({ level: "DEBUG", message: "never" }),
        data({ level: "chatty", message: "c" }),
        data({ level: "chatty", message: "d" }),
        data({ message: "e" }),
        data({ level: "INFO" }),
        data(["f"]),
        data("g"),
        data(null),
        data({ level: "INFO", message: "h\ni" }),
        data({ level: 5, message: 6 }),
      ],
    }],
  });
  assertEquals(outcome.run.code, 0, outcome.run.stderr);
  assertEquals(relayed(outcome), [
    "WARNING a",
    "ERROR b",
    "INFO c",
    "INFO d",
    "INFO e",
    'INFO {"level":"INFO"}',
    'INFO ["f"]',
    'INFO "g"',
    "INFO null",
    "INFO h",
    "INFO i",
    'INFO {"level":5,"message":6}',
  ]);
  assertEquals(outcome.run.stderr.split('with the level "chatty"').length, 2);
});

Deno.test("a cursor that no header could have does not stop the log", async () => {
  const { run, service } = await play({
    logs: [{ pieces: ["id: ☃\u0001\ndata: {}\n\n"] }, {}],
    statuses: [RUNNING, DONE],
  });
  assertEquals(run.code, 0, run.stderr);
  assertEquals(
    new TextDecoder().decode(
      Uint8Array.from(service.cursors[1] ?? "", (char) => char.charCodeAt(0)),
    ),
    "☃",
  );
});

Deno.test("stopping the connector asks the control host to give up", async () => {
  await using lab = await Lab.open();
  const stop = new AbortController();
  await using service = await ControlHostService.open({ logs: [{ end: "hang" }] });
  const running = provisionWith(lab, service, {
    connector: "control_host_iot",
    data: JOB,
    signal: stop.signal,
  });
  await until(() => service.hanging > 0);
  stop.abort(new Stopped("SIGTERM"));
  assertEquals((await running).code, 143);
  assertEquals(service.lines.at(-1), "DELETE /api/v1/provision/j1");
});

Deno.test("the token for the control host is sent to it, and shown to no job", async () => {
  await using lab = await Lab.open();
  await using service = await ControlHostService.open();
  const run = await provisionWith(lab, service, {
    connector: "control_host_iot",
    data: JOB,
    config: { control_host_token: "t0ken" },
  });
  assertEquals(run.code, 0, run.stderr);
  assert(service.calls.every(({ headers }) => headers.authorization === "Bearer t0ken"));
  await lab.job({ test_data: { test_cmds: ["echo '{{' {control_host_token} {agent_name}"] } });
  const test = await lab.stage("control_host_iot", "runtest");
  assertEquals(test.stdout, "{ {control_host_token} a1\n");
  assert(
    !(run.stderr + run.stdout + test.stderr + await lab.read("device-info.json")).includes("t0ken"),
  );
});

Deno.test("more than one attachment is refused before the control host is power-cycled", async () => {
  const { run, service, failure } = await play({}, {
    config: { control_host_reboot_script: ["cycle"] },
    async before(lab) {
      await attach(lab, "b.bin", new Uint8Array(1));
      await attach(lab, "a.bin", new Uint8Array(1));
    },
  });
  assertEquals(run.code, 1);
  assertStringIncludes(failure.exception_message ?? "", "a.bin, b.bin");
  assertEquals(service.lines, []);
});

Deno.test("an attachment that is a link to elsewhere is refused; folders do not count", async () => {
  const { run, failure } = await play({}, {
    async before(lab) {
      await Deno.mkdir(join(lab.cwd, "attachments/provision/folder"), { recursive: true });
      await Deno.symlink("/etc/hostname", join(lab.cwd, "attachments/provision/x"));
    },
  });
  assertEquals(run.code, 1);
  assertStringIncludes(failure.exception_message ?? "", "not inside of attachments/provision");
  const folderOnly = await play({}, {
    async before(lab) {
      await Deno.mkdir(join(lab.cwd, "attachments/provision/folder"), { recursive: true });
    },
  });
  assertEquals(folderOnly.service.provisioning[0], "POST /api/v1/provision");
});

Deno.test("setup says what provision would refuse, and asks nothing of the control host", async () => {
  await using lab = await Lab.open();
  await using service = await ControlHostService.open();
  await lab.config(service.config);
  await lab.job({ provision_data: { preset: "P", urls: ["not-a-url"] } });
  assertEquals((await lab.stage("control_host_iot", "setup")).code, 1);
  await lab.job({ provision_data: { preset: "P" } });
  assertEquals((await lab.stage("control_host_iot", "setup")).code, 0);
  assertEquals(service.lines, []);
});

async function attach(lab: Lab, name: string, bytes: Uint8Array): Promise<void> {
  const folder = join(lab.cwd, "attachments/provision");
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeFile(join(folder, name), bytes);
}
