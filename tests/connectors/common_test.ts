/** What all connectors have in common: the command line, the files, the hook, the serial log. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { CONNECTOR_NAMES } from "../../connectors/registry.ts";
import { Lab } from "./support/lab.ts";
import { answerAll, SCENES } from "./support/scenes.ts";
import { httpStub, tcpStub } from "./support/stubs.ts";

const CONFIG = { agent_name: "a1", device_ip: "10.1.1.1" };

async function filesOf(lab: Lab): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(lab.cwd)) names.push(name);
  return names;
}

Deno.test("00-common 1: a wrong command line is exit status 2, usage on standard error, no file", async () => {
  await using lab = await Lab.open();
  const before = await filesOf(lab);
  for (
    const [args, complaint] of [
      [[], `a device type is needed; there are: ${CONNECTOR_NAMES[0]},`],
      [["--version"], "there is no option '--version' here"],
      [
        ["noprovison"],
        "there is no device type 'noprovison', did you mean 'noprovision'? There are",
      ],
      [["toaster"], `there is no device type 'toaster'; there are: ${CONNECTOR_NAMES[0]},`],
      [["toaster", "provision", "-c", "c.yaml", "j"], "there is no device type 'toaster'"],
      [["noprovision"], "a stage is needed; the stages are: setup, provision, firmware_update"],
      [["noprovision", "bogus", "-c", "c.yaml", "j"], "there is no stage 'bogus'"],
      [
        ["noprovision", "provison"],
        "there is no stage 'provison', did you mean 'provision'? The st",
      ],
      [["noprovision", "-c", "c.yaml"], "a stage must come before '-c'; the stages are: setup"],
      [["noprovision", "provision", "j"], "the device configuration is needed: -c CONFIG"],
      [["noprovision", "provision", "j", "-c"], "-c needs a file"],
      [
        ["noprovision", "provision", "-c", "c.yaml"],
        "the job file is needed, normally testflinger.json",
      ],
      [["noprovision", "provision", "-c", "c.yaml", "j", "k"], "unexpected 'k'"],
      [["noprovision", "provision", "-c", "c.yaml", "--fast", "j"], "there is no option '--fast'"],
      [["describe"], "a device type is needed"],
      [["describe", "toaster"], "there is no device type 'toaster'"],
      [["list", "x"], "unexpected 'x'"],
    ] as const
  ) {
    const { code, stdout, stderr } = await lab.run(args);
    assertEquals(code, 2, args.join(" "));
    assertEquals(stdout, "");
    assertStringIncludes(stderr, "usage: testflinger-device-connector");
    assertStringIncludes(stderr, complaint);
  }
  assertEquals(await filesOf(lab), before);
});

Deno.test("help is there at every level, on standard output, with exit status 0", async () => {
  await using lab = await Lab.open();
  for (
    const [args, text] of [
      [["-h"], `Devices:\n  ${CONNECTOR_NAMES[0]}`],
      [["--help"], "Stages: setup, provision"],
      [["noprovision", "-h"], "makes sure that the device answers"],
      [["noprovision", "provision", "--help"], "-c, --config CONFIG"],
      [["describe", "-h"], "usage: testflinger-device-connector describe"],
      [["list", "-h"], "Lists the device types"],
    ] as const
  ) {
    const { code, stdout, stderr } = await lab.run(args);
    assertEquals([code, stderr], [0, ""], args.join(" "));
    assertStringIncludes(stdout, text);
  }
});

Deno.test("options and the job file may come in either order", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({});
  for (
    const rest of [
      ["-c", "c.yaml", "testflinger.json"],
      ["testflinger.json", "-c", "c.yaml"],
      ["--config=c.yaml", "testflinger.json"],
      ["testflinger.json", "--config", "c.yaml"],
      ["-cc.yaml", "--", "testflinger.json"],
    ]
  ) {
    assertEquals((await lab.run(["noprovision", "allocate", ...rest])).code, 0, rest.join(" "));
  }
});

Deno.test("00-common 2: allocate succeeds and leaves device-info.json", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({});
  assertEquals((await lab.stage("noprovision", "allocate")).code, 0);
  assertEquals(
    await lab.read("device-info.json"),
    '{"device_info":{"device_ip":"10.1.1.1","agent_name":"a1"}}',
  );
  assert(!await lab.has("device-connector-error.json"));
});

Deno.test("00-common 3: a configuration file that is not there is reported to the agent", async () => {
  await using lab = await Lab.open();
  await lab.job({});
  const { code, stderr } = await lab.stage("noprovision", "provision");
  assertEquals(code, 1);
  const failure = await lab.failure("provision");
  assertEquals(failure.exception_name, "ConfigurationError");
  assertMatch(failure.exception_message ?? "", /c\.yaml: cannot be read: /);
  assertStringIncludes(stderr, "c.yaml: cannot be read: ");
});

Deno.test("every mistake in the configuration is named, with its place, before anything is done", async () => {
  await using lab = await Lab.open();
  await lab.config(
    "agent_name: 7\nreboot_script: {a: b}\nserial_port: ttyS0\nenv: {L: [1]}\ndevice_ip: -oProxy\n",
  );
  await lab.job({});
  assertEquals((await lab.stage("noprovision", "runtest")).code, 1);
  const message = (await lab.failure("runtest")).exception_message ?? "";
  for (
    const start of [
      "c.yaml:1:13: agent_name: ",
      "c.yaml:2:16: reboot_script: ",
      "c.yaml:3:14: serial_port: ",
      "c.yaml:4:10: env.L: ",
      "c.yaml:5:12: device_ip: ",
    ]
  ) assertStringIncludes(message, start);
  assert(!await lab.has("device-info.json"));
});

Deno.test("what is wrong with one file is one line, which names the file as the command line did", async () => {
  await using lab = await Lab.open();
  await lab.config("serial_port: ttyS0\n");
  await lab.write("syntax.yaml", "a: [\n");
  await lab.write("good.yaml", "agent_name: a1\n");
  await lab.write("job.json", "{}");
  await lab.write("text.json", "no json");
  await lab.write("broken.json", '{"a": 1,\n "b": }');
  await lab.write("list.json", "[]");
  await lab.write("wrong.json", '{"test_data": 5, "job_id": true}');
  for (
    const [config, job, words] of [
      [
        "c.yaml",
        "job.json",
        "The device configuration cannot be used: c.yaml:1:14: serial_port: is",
      ],
      [
        "syntax.yaml",
        "job.json",
        "The device configuration cannot be used: syntax.yaml:1:4: this [ is never closed",
      ],
      [
        ".",
        "job.json",
        "The device configuration cannot be used: .: cannot be read: it is a direc",
      ],
      ["none.yaml", "job.json", "cannot be used: none.yaml: cannot be read: there is no such file"],
      ["good.yaml", "none.json", "Cannot read the job file 'none.json': there is no such file"],
      ["good.yaml", ".", "Cannot read the job file '.': it is a directory, must be a file"],
      ["good.yaml", "text.json", "The job file 'text.json' is not JSON: "],
      [
        "good.yaml",
        "broken.json",
        "The job file 'broken.json' is not JSON: Unexpected token '}'\n",
      ],
      ["good.yaml", "list.json", "The job file 'list.json' cannot be used: expected an object"],
      ["good.yaml", "wrong.json", "The job file 'wrong.json' cannot be used: job_id: "],
    ] as const
  ) {
    const { code, stderr } = await lab.run(["noprovision", "setup", "-c", config, job]);
    assertEquals(code, 1);
    assertStringIncludes(stderr, words);
    assertMatch(stderr, /^[^\n]* ERROR: DEVICE CONNECTOR: [^\n]*\n$/);
    assert(!stderr.includes(lab.cwd) && !stderr.includes("os error"), stderr);
  }
});

Deno.test("all keys that provision misses are named at once", async () => {
  await using lab = await Lab.open();
  await lab.job({ provision_data: { use_attachment: "i.img" } });
  for (
    const [connector, config, words] of [
      [
        "muxpi",
        {},
        "'agent_name', 'control_host' are missing in the device configuration: set them",
      ],
      ["maas2", { node_id: null }, "'maas_user', 'node_id', 'device_ip' are missing in the device"],
      ["noprovision", {}, "'device_ip' is missing in the device configuration: set it"],
    ] as const
  ) {
    await lab.config(config);
    assertEquals((await lab.stage(connector, "provision")).code, 1);
    assertStringIncludes((await lab.failure("provision")).exception_message ?? "", words);
  }
});

Deno.test("an empty configuration is said to be empty", async () => {
  await using lab = await Lab.open();
  await lab.config("");
  await lab.job({});
  assertEquals((await lab.stage("noprovision", "provision")).code, 1);
  assertStringIncludes((await lab.failure("provision")).exception_message ?? "", "is empty");
});

Deno.test("00-common 11: the failures of two stages are in one valid JSON object", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  // As the agent makes it; in a container it cannot be replaced, only rewritten.
  await lab.write("device-connector-error.json", "");
  const { ino } = await Deno.stat(`${lab.cwd}/device-connector-error.json`);
  await lab.job({ reserve_data: { timeout: "soon" } });
  assertEquals((await lab.stage("noprovision", "runtest")).code, 1);
  assertEquals((await lab.stage("noprovision", "reserve")).code, 1);
  assertEquals(
    Object.keys(await lab.json("device-connector-error.json") as Record<string, unknown>),
    ["runtest_exception_info", "test_exception_info", "reserve_exception_info"],
  );
  assertEquals((await Deno.stat(`${lab.cwd}/device-connector-error.json`)).ino, ino);
});

Deno.test("00-common 13: the serial log has exactly what came, and the connection is made again after 30 s", async () => {
  await using lab = await Lab.open();
  const times: number[] = [];
  await using serial = tcpStub(async (client, n) => {
    times.push(lab.clock.elapsed);
    if (n === 1) await client.write(new Uint8Array([0xff, 0xfb, 0x01, 0x62]));
    client.close();
    if (n === 2) await lab.write("again", "");
  });
  await lab.config({ ...CONFIG, serial_host: "127.0.0.1", serial_port: serial.port });
  await lab.job({ test_data: { test_cmds: "until [ -e again ]; do sleep 0.01; done" } });
  assertEquals((await lab.stage("noprovision", "runtest")).code, 0);
  assertEquals(
    await Deno.readFile(`${lab.cwd}/test-serial.log`),
    new Uint8Array([0xff, 0xfb, 0x01, 0x62]),
  );
  assertEquals((times[1] ?? 0) - (times[0] ?? 0), 30_000);
});

Deno.test("the serial log of provision is there even if nothing answers", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, serial_host: "127.0.0.1", serial_port: 1 });
  await lab.job({});
  assertEquals((await lab.stage("noprovision", "provision")).code, 0);
  assertEquals(await lab.read("provision-serial.log"), "");
});

Deno.test("00-common 14: a control host that answers 500 to everything gets one request, and provision goes on", async () => {
  // What the service of the control host does itself cannot go on without it.
  const others = CONNECTOR_NAMES.filter((name) => !name.startsWith("control_host_"));
  for (const connector of others) {
    const provision = SCENES.find((scene) =>
      scene.connector === connector && scene.stage === "provision" && !scene.variant
    );
    if (provision === undefined) throw new Error(`${connector} has no scene`);
    await using lab = await Lab.open();
    await using server = httpStub(answerAll);
    await using host = httpStub(() => new Response("no", { status: 500 }));
    await provision.prepare(lab, server.port, {
      control_host: "127.0.0.1",
      control_host_port: host.port,
    });
    const { code, stderr } = await lab.stage(connector, "provision");
    assertEquals(code, 0, stderr);
    const withBody = connector === "oemrecovery";
    assertEquals(host.requests, [{
      method: "POST",
      path: "/api/v1/system/setup/provisioning",
      body: withBody ? '{"usb":"DUT"}' : "",
      contentType: withBody ? "application/json" : null,
    }], connector);
    assertEquals(stderr.match(/setup\/provisioning/g)?.length, 1);
  }
});

Deno.test("00-common 15: DISABLE_CONTROL_HOST_POWERCYCLE leaves only the set-up request", async () => {
  await using lab = await Lab.open();
  await using host = httpStub(() => new Response());
  await lab.config({
    ...CONFIG,
    control_host: "127.0.0.1",
    control_host_port: host.port,
    control_host_reboot_script: "touch rebooted",
  });
  await lab.job({});
  const { code } = await lab.stage("fake_connector", "provision", {
    env: { DISABLE_CONTROL_HOST_POWERCYCLE: "1" },
  });
  assertEquals(code, 0);
  assertEquals(host.requests.map(({ path }) => path), ["/api/v1/system/setup/provisioning"]);
  assert(!await lab.has("rebooted"));
});

Deno.test("setup of every connector reads the configuration and the job, and asks no device or server", async () => {
  await using host = httpStub(() => new Response());
  for (const connector of CONNECTOR_NAMES) {
    await using lab = await Lab.open();
    // What provision needs may still be missing: the job does not want to be provisioned.
    await lab.config({ agent_name: "a1", control_host: "127.0.0.1", control_host_port: host.port });
    await lab.job({ provision_data: { skip: true, jobs: "none", fake_exit: 300 } });
    const good = await lab.stage(connector, "setup");
    assertEquals([good.code, good.stdout], [0, ""], good.stderr);
    assertEquals(await lab.json("device-info.json"), { device_info: { agent_name: "a1" } });
    assert(!await lab.has("device-connector-error.json"));

    await lab.write("testflinger.json", "[1,");
    assertEquals((await lab.stage(connector, "setup")).code, 1);
    const badJob = await lab.failure("setup");
    assertEquals(badJob.exception_name, "JobError");
    assertMatch(badJob.exception_message ?? "", /testflinger\.json' is not JSON: /);

    await lab.config("agent_name: 7\nserial_port: ttyS0\nenv: {L: [1]}\n");
    assertEquals((await lab.stage(connector, "setup")).code, 1);
    const badConfig = (await lab.failure("setup")).exception_message ?? "";
    for (
      const place of ["c.yaml:1:13: agent_name", "c.yaml:2:14: serial_port", "c.yaml:3:10: env.L"]
    ) {
      assertStringIncludes(badConfig, place);
    }
    assertEquals(await lab.calls(), []);
  }
  assertEquals(host.requests, []);
});

Deno.test("device-info.json that cannot be written fails provision, and is a warning elsewhere", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ test_data: { test_cmds: "true" } });
  await Deno.mkdir(`${lab.cwd}/device-info.json`);
  const runtest = await lab.stage("noprovision", "runtest");
  assertEquals(runtest.code, 0);
  assertStringIncludes(runtest.stderr, "WARNING: DEVICE CONNECTOR: Cannot write device-info.json");
  assertEquals((await lab.stage("noprovision", "provision")).code, 1);
});

Deno.test("a log line has time, agent, level and the marker that filters look for", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({});
  const { stderr } = await lab.stage("fake_connector", "provision");
  assertMatch(
    stderr,
    /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} a1 INFO: DEVICE CONNECTOR: BEGIN provision$/m,
  );
});
