/** What all connectors have in common: 00-common. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { CONNECTOR_NAMES } from "../../connectors/registry.ts";
import { Lab } from "./support/lab.ts";
import { answerAll, SCENES } from "./support/scenes.ts";
import { httpStub, tcpStub, until } from "./support/stubs.ts";

const CONFIG = { agent_name: "a1", device_ip: "10.1.1.1" };

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

Deno.test("00-common 4: a list of commands runs to its end and fails as its first failure", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ test_data: { test_cmds: ["echo a; false", "echo b", "exit 3"] } });
  const { code, stdout } = await lab.stage("noprovision", "runtest");
  assertEquals([code, stdout], [1, "a\nb\n"]);
});

Deno.test("test_cmds_list_status: last brings back the old rule", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, test_cmds_list_status: "last" });
  await lab.job({ test_data: { test_cmds: ["false", "true"] } });
  assertEquals((await lab.stage("noprovision", "runtest")).code, 0);
});

Deno.test("an empty list of commands succeeds with a warning", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ test_data: { test_cmds: [] } });
  const { code, stderr } = await lab.stage("noprovision", "runtest");
  assertEquals(code, 0);
  assertStringIncludes(
    stderr,
    "WARNING: DEVICE CONNECTOR: The job's list of test commands is empty",
  );
});

Deno.test("00-common 5: a text of commands is the script ./tf_cmd_script, run by bash", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ test_data: { test_cmds: "echo $0; exit 3" } });
  // A link that somebody left there must not be written through.
  await lab.write("precious", "kept");
  await Deno.symlink("precious", `${lab.cwd}/tf_cmd_script`);
  const { code, stdout } = await lab.stage("noprovision", "runtest");
  assertEquals([code, stdout], [3, "./tf_cmd_script\n"]);
  assert((await lab.read("tf_cmd_script")).startsWith("#!/bin/bash\n"));
  assertEquals(((await Deno.lstat(`${lab.cwd}/tf_cmd_script`)).mode ?? 0) & 0o777, 0o700);
  assertEquals(await lab.read("precious"), "kept");
});

Deno.test("a script with an interpreter of its own keeps it, and one that is missing is status 127", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ test_data: { test_cmds: "#!/bin/sh\necho $0" } });
  assertEquals((await lab.stage("noprovision", "runtest")).stdout, "./tf_cmd_script\n");
  await lab.job({ test_data: { test_cmds: "#!/no/such/interpreter\n" } });
  assertEquals((await lab.stage("noprovision", "runtest")).code, 127);
});

Deno.test("00-common 6: tests get the configuration's variables, the connector's, and the secrets", async () => {
  await using lab = await Lab.open();
  await lab.config({
    ...CONFIG,
    reboot_script: ["echo one", "echo two"],
    env: { FOO: "bar", AGENT_NAME: "x", OWN: "mine" },
  });
  await lab.job({
    test_data: {
      test_cmds: 'echo "$REBOOT_SCRIPT|$AGENT_NAME|$FOO|$OWN|$INHERITED"',
      secrets: { FOO: "sec" },
    },
  });
  const { stdout } = await lab.stage("noprovision", "runtest", { env: { INHERITED: "yes" } });
  assertEquals(stdout, "echo one;echo two|a1|sec|mine|yes\n");
});

Deno.test("numbers and booleans in env become their text, and null sections count as absent", async () => {
  await using lab = await Lab.open();
  await lab.config(
    "agent_name:\nreboot_script:\nenv: {N: 5, V: 1.10, Z: 010, B: yes, F: false, E: ''}\n",
  );
  await lab.job({
    provision_data: null,
    test_data: {
      test_cmds:
        'echo "$N $V $Z $B $F"; echo "${E-unset} ${AGENT_NAME-unset} ${REBOOT_SCRIPT-unset}"',
      secrets: null,
    },
  });
  const { code, stdout } = await lab.stage("noprovision", "runtest", {
    env: { AGENT_NAME: "inherited" },
  });
  assertEquals([code, stdout], [0, "5 1.10 010 true false\n unset unset\n"]);
});

Deno.test("one text as reboot_script is a list of one command", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, reboot_script: "echo abc" });
  await lab.job({ test_data: { test_cmds: "echo $REBOOT_SCRIPT" } });
  assertEquals((await lab.stage("noprovision", "runtest")).stdout, "echo abc\n");
});

Deno.test("00-common 7: a text with '{{' is a template, with a warning that this is deprecated", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, env: { FOO: "bar" } });
  await lab.job({
    test_data: {
      test_cmds: 'echo "{{a}} {device_ip} ${HOME} {nope} {env[FOO]} {env[SECRET]}"',
      secrets: { SECRET: "hidden" },
    },
  });
  const { stdout, stderr } = await lab.stage("noprovision", "runtest");
  assertEquals(stdout, `{a} 10.1.1.1 ${lab.env().HOME} {nope} bar {env[SECRET]}\n`);
  assertStringIncludes(stderr, "deprecated");
  assertStringIncludes(
    stderr,
    "INFO: DEVICE CONNECTOR: Filled in from the configuration: device_ip, env[FOO]",
  );
});

Deno.test("00-common 8: without '{{' nothing is filled in", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ test_data: { test_cmds: ["echo {device_ip}"] } });
  const { stdout, stderr } = await lab.stage("noprovision", "runtest");
  assertEquals(stdout, "{device_ip}\n");
  assert(!stderr.includes("deprecated"));
});

Deno.test("00-common 9: a test cannot pretend that the device needs recovery", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  for (const commands of ["exit 46", ["exit 46", "true"]]) {
    await lab.job({ test_data: { test_cmds: commands } });
    const { code, stderr } = await lab.stage("noprovision", "runtest");
    assertEquals(code, 1);
    assertStringIncludes(stderr, "exit status 46");
  }
});

Deno.test("a test that is killed by a signal ends with 128 and its number", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ test_data: { test_cmds: "kill -9 $$" } });
  assertEquals((await lab.stage("noprovision", "runtest")).code, 137);
});

Deno.test("00-common 10: runtest without test_data is reported under both names of the phase", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({});
  assertEquals((await lab.stage("noprovision", "runtest")).code, 1);
  assertStringIncludes((await lab.failure("runtest")).exception_message ?? "", "test_data");
  assertEquals(await lab.failure("test"), await lab.failure("runtest"));
});

Deno.test("test_cmds of the wrong type is exit status 1, without an error file", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  for (const test_data of [{}, { test_cmds: 5 }, { test_cmds: ["true", 5] }]) {
    await lab.job({ test_data });
    assertEquals((await lab.stage("noprovision", "runtest")).code, 1);
  }
  assert(!await lab.has("device-connector-error.json"));
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

Deno.test("00-common 12: reserve installs the keys that there are, says where to log in, and waits", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, serial_host: "console", serial_port: "7001" });
  await lab.job({ job_id: "j1", reserve_data: { ssh_keys: ["lp:ok", "lp:missing"], timeout: 2 } });
  await lab.fake(
    "ssh-import-id",
    `case "$*" in *missing) echo "status_code=404 user=missing" >&2; exit 1;; esac
     echo "ssh-ed25519 KEY ok" >> "$2"`,
  );
  const { code, stdout } = await lab.stage("noprovision", "reserve");
  assertEquals(code, 0);
  const ssh = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
  assertEquals((await lab.calls()).map(({ program, args }) => [program, ...args]), [
    ["ssh-import-id", "-o", "key.pub", "--", "lp:ok"],
    ["ssh-import-id", "-o", "key.pub", "--", "lp:missing"],
    [
      "ssh-copy-id",
      "-f",
      "-i",
      "key.pub",
      ...ssh,
      "-o",
      "ConnectTimeout=10",
      "-o",
      "NumberOfPasswordPrompts=1",
      "ubuntu@10.1.1.1",
    ],
  ]);
  assertEquals(await lab.read("key.pub"), "ssh-ed25519 KEY ok\n");
  assertStringIncludes(stdout, "*** TESTFLINGER SYSTEM RESERVED ***\n");
  assertEquals(lab.clock.elapsed, 2_000);
});

Deno.test("00-common 12.4: the lines of a reservation are these, in this order, with nothing between", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, serial_host: "console", serial_port: 7001 });
  await lab.job({ job_id: "j1", reserve_data: { timeout: 2 } });
  const { stdout } = await lab.stage("noprovision", "reserve");
  assertEquals(
    stdout,
    `*** TESTFLINGER SYSTEM RESERVED ***
You can now connect to ubuntu@10.1.1.1
Serial access is available via: telnet console 7001
Current time:           [2026-01-01T00:00:00+00:00]
Reservation expires at: [2026-01-01T00:00:02+00:00]
Reservation will automatically timeout in 2 seconds
To end the reservation sooner use: testflinger-cli cancel j1
`,
  );
});

Deno.test("00-common 12.4: the address is where scripts in the field look for it, with and without serial", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, serial_host: "", serial_port: 0 });
  await lab.job({ reserve_data: { timeout: 2 }, test_data: { test_username: "Bob-1" } });
  const { stdout } = await lab.stage("noprovision", "reserve");
  assertEquals(stdout.split("\n").length, 7);
  assertEquals(stdout.includes("Serial"), false);
  const find = new Deno.Command("sh", {
    args: ["-c", `grep -m 1 "^You can now connect to" | sed -n "s/.*@\\([0-9.]*\\).*/\\1/p"`],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const input = find.stdin.getWriter();
  await input.write(new TextEncoder().encode(stdout));
  await input.close();
  assertEquals(new TextDecoder().decode((await find.output()).stdout), "10.1.1.1\n");
  assertStringIncludes(stdout, "You can now connect to Bob-1@10.1.1.1\n");
});

Deno.test("reserve tries ten times to import a key, and says when none could be installed", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ reserve_data: { ssh_keys: ["lp:slow", "--help", 7], timeout: "1m30s" } });
  await lab.fake("ssh-import-id", "echo server error; exit 1");
  const { code, stdout, stderr } = await lab.stage("noprovision", "reserve");
  assertEquals(code, 0);
  assertEquals((await lab.calls("ssh-import-id")).length, 10);
  assertEquals(lab.clock.paused, [
    1_000,
    2_000,
    4_000,
    8_000,
    16_000,
    32_000,
    64_000,
    100_000,
    100_000,
    90_000,
  ]);
  assertEquals(await lab.calls("ssh-copy-id"), []);
  assertStringIncludes(stdout, "no ssh key could be installed");
  assertStringIncludes(stderr, `"--help" in 'reserve_data.ssh_keys' is neither`);
});

Deno.test("reserve without keys just waits, without a warning", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ reserve_data: { timeout: 5 } });
  const { code, stdout } = await lab.stage("noprovision", "reserve");
  assertEquals(code, 0);
  assert(stdout.startsWith("*** TESTFLINGER SYSTEM RESERVED ***\n"));
  assertEquals(await lab.calls(), []);
});

Deno.test("reserve goes on when the keys cannot be copied", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ reserve_data: { ssh_keys: ["gh:me"], timeout: null } });
  await lab.fake("ssh-import-id", 'echo "ssh-rsa KEY me" >> "$2"');
  await lab.fake("ssh-copy-id", "exit 1");
  const { code, stdout } = await lab.stage("noprovision", "reserve");
  assertEquals(code, 0);
  assertEquals((await lab.calls("ssh-copy-id")).length, 10);
  assertEquals(lab.clock.elapsed, 9 * 60_000 + 3_600_000);
  assertStringIncludes(stdout, "*** TESTFLINGER SYSTEM RESERVED ***");
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

Deno.test("the serial log of provision is there even if nobody answers", async () => {
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

Deno.test("runtest tells the control host that tests begin", async () => {
  await using lab = await Lab.open();
  await using host = httpStub(() => new Response());
  await lab.config({ ...CONFIG, control_host: "127.0.0.1", control_host_port: host.port });
  await lab.job({ test_data: { test_cmds: "true" } });
  assertEquals((await lab.stage("noprovision", "runtest")).code, 0);
  assertEquals(host.requests.map(({ method, path }) => `${method} ${path}`), [
    "POST /api/v1/system/setup/test",
  ]);
});

Deno.test("output that is no text and has no line end is passed on as it is", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({
    test_data: { test_cmds: "printf 'login: '; until [ -e seen ]; do sleep 0.01; done" },
  });
  let seen = "";
  const run = lab.stage("noprovision", "runtest", { onStdout: (text) => seen += text });
  await until(() => seen === "login: ");
  await lab.write("seen", "");
  assertEquals((await run).code, 0);
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

async function filesOf(lab: Lab): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(lab.cwd)) names.push(name);
  return names;
}
