import { assertEquals, assertStringIncludes } from "@std/assert";
import { AGENT, run, withFiles } from "./support.ts";

/** What `check` says of the files, with the folder taken off their names. */
async function check(
  files: Record<string, string>,
  args: (folder: string) => string[],
): Promise<{ status: number; lines: string[] }> {
  let result = { status: -1, lines: [] as string[] };
  await withFiles(files, async (folder) => {
    const { status, stdout } = await run("check", ...args(folder));
    result = { status, lines: stdout.replaceAll(`${folder}/`, "").trimEnd().split("\n") };
  });
  return result;
}

/** What `check` says of one agent's file. */
function checkAgent(more: string, ...flags: string[]) {
  return check({ "a.conf": AGENT + more }, (folder) => [...flags, `${folder}/a.conf`]);
}

/** Agents of these tests share their folders. */
const SAME_LOG =
  "warning: logging_basedir: 'logs' is that of a.conf too: both write one log, whose " +
  "lines have their names; give each its own folder";

Deno.test("check accepts a valid agent's configuration", async () => {
  assertEquals(await checkAgent("test_command: echo hello\n"), {
    status: 0,
    lines: ["a.conf: the agent's configuration is valid", "1 file: 0 mistakes, 0 warnings"],
  });
});

Deno.test("check lists all mistakes of all files with their places, and ends with 2", async () => {
  const { status, lines } = await check(
    { "a.conf": "agent_id: 5\njob_queue: [q]\n", "b.conf": `${AGENT}polling_interval: soon\n` },
    (folder) => ["-c", `${folder}/a.conf`, "--config", `${folder}/b.conf`],
  );
  assertEquals(status, 2);
  assertEquals(lines, [
    "a.conf:1:1: server_address: is missing, must be text",
    "a.conf:1:1: job_queues: is missing, must be a list of queue names",
    "a.conf:1:11: agent_id: is the number '5', must be text: put it in quotes, '5'",
    "   1 | agent_id: 5",
    "     |           ^",
    "a.conf:2:1: job_queue: is not a known key, did you mean 'job_queues'?",
    "   2 | job_queue: [q]",
    "     | ^",
    "b.conf:7:19: polling_interval: is the text 'soon', must be a number",
    "   7 | polling_interval: soon",
    "     |                   ^",
    "2 files: 5 mistakes, 0 warnings",
  ]);
});

Deno.test("check --config-dir judges all agents of a host together, in both layouts", async () => {
  const own = (name: string) => AGENT.replaceAll("DIR/", `DIR/${name}/`).replace("rpi4-1", name);
  const { status, lines } = await check({
    "a.conf": `${own("a")}metrics_port: 9100\n`,
    "b.conf": `${own("b")}metrics_port: 9101\n`,
    "c.conf": own("a").replace("DIR/a/logs", "DIR/c/logs"),
    "d/testflinger-agent.conf": `${own("d")}connector: noprovision\n`,
    "d/default.yaml": "device_ip: 127.0.0.1\n",
    "d/environment": "",
    "e/testflinger-agent.conf": own("e").replace("DIR/e/logs", "DIR/a/logs"),
    "notes.txt": "",
    "f/other.conf": "",
  }, (folder) => ["--config-dir", folder]);
  assertEquals([status, lines], [2, [
    "a.conf:1:11: agent_id: 'a' is the agent_id of c.conf too: remove one of the files, or give it " +
    "another agent_id",
    "   1 | agent_id: a",
    "     |           ^",
    "b.conf:7:15: warning: metrics_port: 127.0.0.1:9101 is not opened: one endpoint serves all " +
    "agents of the process, at 127.0.0.1:9100 of a.conf; remove the key here",
    "c.conf:1:11: agent_id: 'a' is the agent_id of a.conf too: remove one of the files, or give it " +
    "another agent_id",
    "   1 | agent_id: a",
    "     |           ^",
    "d/testflinger-agent.conf:1:1: warning: the file 'environment' next to it is for an agent with its own " +
    "process, and is not read: what is for all agents belongs into " +
    "/etc/testflinger-agent/environment, what is for this one's jobs into its commands",
    "e/testflinger-agent.conf:5:18: warning: logging_basedir: 'a/logs' is that of a.conf too: both " +
    "write one log, whose lines have their names; give each its own folder",
    "d/default.yaml: the device's configuration is valid for noprovision",
    "6 files: 2 mistakes, 3 warnings",
  ]]);
});

Deno.test("check judges the other keys while one is wrong", async () => {
  const { status, lines } = await check({
    "a.conf": `${AGENT.replace("http://127.0.0.1:1", "ftp://x")}connector: muxpy\n` +
      "connector_config: DIR/none.yaml\ntest_command: no-such-program\n",
    "b.conf": `${AGENT.replace("[rpi4]", "rpi4")}metrics_port: 1000000\nconnector: muxpi\n`,
    "device.yaml": "serial_port: many\nagent_name: x\n",
    "c.conf": `${AGENT.replace("rpi4-1", "other")}connector: muxpi\n` +
      "connector_config: DIR/device.yaml\nmax_spool: much\n",
  }, (folder) => ["a", "b", "c"].map((name) => `${folder}/${name}.conf`));
  assertEquals(status, 2);
  const said = lines.filter((line) => !line.startsWith(" ") && !line.includes("PATH"));
  assertEquals(said, [
    "a.conf:1:11: agent_id: 'rpi4-1' is the agent_id of b.conf too: remove one of the files, or " +
    "give it another agent_id",
    "a.conf:2:17: server_address: is the text 'ftp://x', must be an http or https URL, such as " +
    "'https://testflinger.example.com'",
    "a.conf:7:12: connector: there is no device connector 'muxpy', did you mean 'muxpi'?",
    "b.conf:1:11: agent_id: 'rpi4-1' is the agent_id of a.conf too: remove one of the files, or " +
    "give it another agent_id",
    "b.conf:3:13: job_queues: is the text 'rpi4', must be a list: write ['rpi4']",
    `b.conf:5:18: ${SAME_LOG}`,
    "b.conf:7:15: metrics_port: is the number '1000000', must be at most 65535",
    "b.conf:8:12: connector: 'muxpi' must come with connector_config, the device's own file",
    `c.conf:5:18: ${SAME_LOG}`,
    "c.conf:9:12: max_spool: is the text 'much', must be a number of bytes, or a size such as '500 MB' or '1 GiB'",
    "device.yaml:1:1: control_host: is missing, muxpi cannot provision without it",
    "device.yaml:1:1: warning: test_device: is missing, muxpi needs it for jobs without 'media'",
    "device.yaml:1:1: warning: device_ip: is missing, muxpi needs it for jobs without a " +
    "'boot_check_url'",
    "device.yaml:1:14: serial_port: is the text 'many', must be a port number, 1 to 65535",
    "4 files: 10 mistakes, 5 warnings",
  ]);
});

Deno.test("check warns about the other keys while one is wrong, and says of that one only what is wrong", async () => {
  const { status, lines } = await check({
    "a.conf": "agent_id: a\nserver_address: ftp://x/agents\njob_queues: [q]\n" +
      "execution_basedir: /tmp\nlogging_basedir: logs\n",
  }, (folder) => [`${folder}/a.conf`]);
  assertEquals(status, 2);
  assertEquals(lines.filter((line) => !line.startsWith(" ")), [
    "a.conf:2:17: server_address: is the text 'ftp://x/agents', must be an http or https URL, such as " +
    "'https://testflinger.example.com'",
    "a.conf:4:20: warning: execution_basedir: is '/tmp', which others use too: give the agents a " +
    "folder of their own, such as '/tmp/testflinger/execution'",
    "a.conf:5:18: warning: logging_basedir: is 'logs', in the folder that the agent is started in: " +
    "write the absolute path",
    "1 file: 1 mistake, 2 warnings",
  ]);
});

Deno.test("check says what is allowed and hardly meant: an address with a path, shared and relative folders", async () => {
  const { status, lines } = await check({
    "a.conf": "agent_id: a\nserver_address: https://host.example/agents/\njob_queues: [q]\n" +
      "execution_basedir: /tmp/\nlogging_basedir: logs\nresults_basedir: /var/tmp\n" +
      "metrics_host: 0.0.0.0\n",
  }, (folder) => [`${folder}/a.conf`]);
  assertEquals(status, 0);
  assertEquals(lines, [
    "a.conf:2:17: warning: server_address: has the path '/agents', below which the server is asked: " +
    "remove it, unless the server really is there",
    "a.conf:4:20: warning: execution_basedir: is '/tmp/', which others use too: give the agents a " +
    "folder of their own, such as '/tmp/testflinger/execution'",
    "a.conf:5:18: warning: logging_basedir: is 'logs', in the folder that the agent is started in: " +
    "write the absolute path",
    "a.conf:6:18: warning: results_basedir: is '/var/tmp', which others use too: give the agents a " +
    "folder of their own, such as '/var/tmp/testflinger/results'",
    "a.conf:7:15: warning: metrics_host: does nothing without metrics_port (or the option -p)",
    "1 file: 0 mistakes, 5 warnings",
  ]);
});

Deno.test("check looks for the programs that phase commands name, not for what the shell does itself", async () => {
  const command = [
    "set -e; export X=1 && cd /tmp",
    "FOO=bar no-such-program-1 --flag | /no/such/program-2",
    "if no-such-program-3; then echo 'no-such-program-4 ; x'; fi",
    "ours() { :; }; ours; ./relative; $EXPANDED; for i in a b; do true; done # no-such-program-5",
    "exec no-such-program-6 > /dev/null 2>&1",
  ].map((line) => `  ${line}`).join("\n");
  const { status, lines } = await checkAgent(`test_command: |\n${command}\n`);
  const path = "in this shell's PATH; the agent's may be another";
  assertEquals(status, 0);
  assertEquals(lines, [
    `a.conf:7:15: warning: test_command: there is no program 'no-such-program-1' ${path}`,
    "a.conf:7:15: warning: test_command: there is no program '/no/such/program-2' on this host",
    `a.conf:7:15: warning: test_command: there is no program 'no-such-program-3' ${path}`,
    `a.conf:7:15: warning: test_command: there is no program 'no-such-program-6' ${path}`,
    "1 file: 0 mistakes, 4 warnings",
  ]);
});

Deno.test("check --strict ends with 1 when there are only warnings", async () => {
  const { status } = await checkAgent("test_command: no-such-program\n", "--strict");
  assertEquals(status, 1);
});

Deno.test("check follows phase commands to device configurations, and judges them by their connector", async () => {
  const program = "testflinger-agent device-connector";
  const { status, lines } = await check({
    "a.conf": `${AGENT}` +
      `provision_command: ${program} noprovision provision -c DIR/device.yaml testflinger.json\n` +
      `test_command: ${program} noprovision runtest -c DIR/device.yaml testflinger.json\n`,
    "device.yaml": "agent_name: x\nserial_port: many\ndevice_pi: 10.0.0.1\n",
  }, (folder) => [`${folder}/a.conf`]);
  assertEquals(status, 2);
  assertStringIncludes(
    lines.join("\n"),
    "device.yaml:2:14: serial_port: is the text 'many', must be a port number, 1 to 65535",
  );
});

Deno.test("check says what a device configuration lacks for provisioning, and which key was misspelt", async () => {
  const { status, lines } = await check({
    "a.conf": `${AGENT}provision_command: testflinger-device-connector noprovision provision ` +
      "--config=DIR/device.yaml testflinger.json\n",
    "device.yaml": "agent_name: x\ndevice_pi: 10.0.0.1\nour_own_note: y\n",
  }, (folder) => [`${folder}/a.conf`]);
  assertEquals(status, 2);
  assertEquals(lines.filter((line) => line.startsWith("device.yaml")), [
    "device.yaml:1:1: device_ip: is missing, noprovision cannot provision without it",
    "device.yaml:2:12: warning: device_pi: is not a key of device connectors, did you mean 'device_ip'?",
  ]);
});

Deno.test("00-common 18: check warns of what a shell reads in a reboot_script, and names its place", async () => {
  const about = async (script: string) => {
    const { status, lines } = await check(
      { "device.yaml": `device_ip: 10.0.0.1\nreboot_script:${script}\n` },
      (folder) => ["--connector", "noprovision", `${folder}/device.yaml`],
    );
    assertEquals(status, 0);
    return lines.filter((line) => line.includes("reboot_script"))
      .map((line) => line.replace(/; the established .*/, ""));
  };
  for (const plain of ["pdu off 1", "rb http://pdu/o?a=1", "snmpset -c x 1.3.6 i 1", "a#b c~"]) {
    assertEquals(await about(` ["${plain}", "sleep 5"]`), [], plain);
  }
  assertEquals(await about('\n  - "pdu off"\n  - "rb http://pdu/o?a=1&b=2"'), [
    "device.yaml:4:5: warning: reboot_script[1]: is run by /bin/sh, which reads the '&' in it",
  ]);
  for (const character of ["&", ";", "$", "#", "(", ">", "~", "'", '\\"']) {
    assertEquals(
      await about(` "pdu ${character}x"`),
      [
        `device.yaml:2:16: warning: reboot_script[0]: is run by /bin/sh, which reads the ` +
        `'${character.replace("\\", "")}' in it`,
      ],
    );
  }
});

Deno.test("check warns of device configurations that say nothing of a BMC's certificate, where firmware is updated", async () => {
  const about = async (device: string, command = "") => {
    const { lines } = await check({
      "a.conf": `${AGENT}${command}`,
      "device.yaml": `device_ip: 10.0.0.1\n${device}`,
    }, (folder) => [`${folder}/a.conf`, "--connector", "maas2", `${folder}/device.yaml`]);
    return lines.filter((line) => line.includes("bmc_ca_file"))
      .map((line) => line.replace(/firmware updates fail .*/, "..."));
  };
  const maas = "maas_user: lab\nnode_id: abc\n";
  const updates = "firmware_update_command: testflinger-device-connector maas2 firmware_update " +
    "-c DIR/device.yaml testflinger.json\n";
  const method = "firmware_method: hpe\n";
  assertEquals(await about(method), ["device.yaml:1:1: warning: bmc_ca_file: is missing: ..."]);
  assertEquals(await about(maas, updates), [
    "device.yaml:1:1: warning: bmc_ca_file: is missing: if this is an HPE server, its ...",
  ]);
  assertEquals(await about(maas), []);
  for (
    const line of ["bmc_verify_tls: false", "bmc_ca_file: /etc/x.pem", "firmware_method: lvfs"]
  ) {
    assertEquals(await about(`${maas}${line}\n`, updates), [], line);
  }
});

Deno.test("check knows connectors and stages, with a suggestion, and wants absolute paths", async () => {
  const call = (words: string) =>
    checkAgent(`provision_command: testflinger-device-connector ${words} testflinger.json\n`);
  const about = async (words: string) => {
    const { status, lines } = await call(words);
    const found = lines.filter((line) => !line.includes("there is no program"))[0] ?? "";
    return `${status} ${found.replace("a.conf:7:20: ", "").replace("provision_command: ", "")}`;
  };
  assertEquals(
    await about("muxpy provision -c /dev/null"),
    "2 there is no device connector 'muxpy', did you mean 'muxpi'?",
  );
  assertEquals(
    await about("muxpi provisoin -c /dev/null"),
    "2 there is no stage 'provisoin', did you mean 'provision'?",
  );
  assertEquals(
    await about("muxpi provision"),
    "2 the connector needs -c and a device configuration",
  );
  assertEquals(
    await about("muxpi provision -c default.yaml"),
    "2 'default.yaml' is looked for in each job's folder: write the absolute path",
  );
  assertEquals(
    await about("muxpi provision -c /no/such.yaml"),
    "2 there is no file '/no/such.yaml', a device configuration",
  );
});

Deno.test("check takes the key connector and its connector_config for a call, too", async () => {
  const { status, lines } = await checkAgent("connector: muxpy\nconnector_config: device.yaml\n");
  assertEquals(status, 2);
  assertEquals(
    lines[0],
    "a.conf:7:12: connector: there is no device connector 'muxpy', did you mean 'muxpi'?",
  );
});

Deno.test("check reads a device configuration by itself, by the connector that is named", async () => {
  const files = { "device.yaml": "device_ip: 10.0.0.1\nssh_port: none\n" };
  const common = await check(files, (folder) => [`${folder}/device.yaml`]);
  assertEquals(common.status, 2);
  const named = await check(
    { "device.yaml": "device_ip: 10.0.0.1\n" },
    (folder) => ["--connector", "noprovision", `${folder}/device.yaml`],
  );
  assertEquals(named, {
    status: 0,
    lines: [
      "device.yaml: the device's configuration is valid for noprovision",
      "1 file: 0 mistakes, 0 warnings",
    ],
  });
  const unnamed = await check(
    { "device.yaml": "device_ip: 10.0.0.1\n" },
    (folder) => [`${folder}/device.yaml`],
  );
  assertEquals(
    unnamed.lines[0],
    "device.yaml: the device's configuration is valid as far as all connectors have it in common " +
      "(--connector NAME checks more)",
  );
});

Deno.test("check --connector names all keys without which nothing, or not everything, is provisioned", async () => {
  const about = async (connector: string, device: string) =>
    await check(
      { "device.yaml": device },
      (folder) => ["--connector", connector, `${folder}/device.yaml`],
    );
  // A file without keys is that of a device, too, once a connector is named.
  assertEquals(await about("muxpi", "{}\n"), {
    status: 2,
    lines: [
      "device.yaml:1:1: agent_name: is missing, muxpi cannot provision without it",
      "device.yaml:1:1: control_host: is missing, muxpi cannot provision without it",
      "device.yaml:1:1: warning: test_device: is missing, muxpi needs it for jobs without " +
      "'media'",
      "device.yaml:1:1: warning: device_ip: is missing, muxpi needs it for jobs without a " +
      "'boot_check_url'",
      "1 file: 2 mistakes, 2 warnings",
    ],
  });
  const recovery = await about("oemrecovery", "device_ip: 10.0.0.1\n");
  assertEquals([recovery.status, recovery.lines[0]], [
    2,
    "device.yaml:1:1: recovery_cmds: is missing, oemrecovery cannot provision without it",
  ]);
  const empty = await about("oemrecovery", "device_ip: 10.0.0.1\nrecovery_cmds: []\n");
  assertStringIncludes(
    empty.lines[0] ?? "",
    "warning: recovery_cmds: is empty, oemrecovery needs it to provision",
  );
});

Deno.test("check finds what agents of one host must not share", async () => {
  const other = AGENT.replace("rpi4-1", "rpi41");
  const connector = "test_command: testflinger-agent device-connector muxpi runtest " +
    "-c DIR/device.yaml testflinger.json\n";
  const { status, lines } = await check({
    "a.conf": `${AGENT}metrics_port: 9100\n${connector}`,
    "b.conf": `${AGENT}`,
    "c.conf": `${other}metrics_port: 9100\n${connector}`,
    "device.yaml": "device_ip: 10.0.0.1\n",
  }, (folder) => ["a.conf", "b.conf", "c.conf"].map((name) => `${folder}/${name}`));
  // Whether the program is installed on this machine makes a.conf valid.
  const said = lines.filter((line) => !/there is no program|^ |is valid$/.test(line));
  assertEquals(status, 2);
  assertEquals(said, [
    "a.conf:1:11: agent_id: 'rpi4-1' is the agent_id of b.conf too: remove one of the files, or " +
    "give it another agent_id",
    "b.conf:1:11: agent_id: 'rpi4-1' is the agent_id of a.conf too: remove one of the files, or " +
    "give it another agent_id",
    `b.conf:5:18: ${SAME_LOG}`,
    "c.conf:1:11: warning: agent_id: 'rpi41' without its dashes is the id of a.conf too: a marker " +
    "file meant for one of the two may reach the other",
    `c.conf:5:18: ${SAME_LOG}`,
    "c.conf:7:15: warning: metrics_port: 9100 is the port of a.conf too: choose another",
    "device.yaml: warning: is the device of 2 agents, which would disturb each other: a.conf, c.conf",
    said.at(-1) ?? "",
  ]);
});

Deno.test("check warns of folders that cannot be written, and of queues that the server cannot show", async () => {
  const { status, lines } = await checkAgent(
    "advertised_queues: {rip4: all of them}\n" +
      "advertised_images: {rpi4: {core: 'url: x'}}\n",
  );
  assertEquals([status, lines[0]], [
    0,
    "a.conf:7:27: warning: advertised_queues.rip4: 'rip4' is not one of job_queues: did you mean 'rpi4'?",
  ]);
  const folders = await check({
    "a.conf": AGENT.replace("DIR/run", "DIR/a.conf/run").replace("[rpi4]", "[a/b, c, c]"),
  }, (folder) => [`${folder}/a.conf`]);
  assertEquals(folders.lines, [
    "a.conf:3:14: warning: job_queues[0]: is 'a/b': the server cannot show a queue with '/', '?', " +
    "'#' or '%' in its name",
    "a.conf:3:22: warning: job_queues[2]: 'c' is there twice: remove one",
    "a.conf:4:20: warning: execution_basedir: a.conf is not a folder: make it by hand, owned by " +
    "the agent's user",
    "1 file: 0 mistakes, 3 warnings",
  ]);
});

Deno.test("check --format json says the same to a program", async () => {
  await withFiles({ "a.conf": `${AGENT}output_timeout: -1\n` }, async (folder) => {
    const { status, stdout } = await run("check", "--format", "json", `${folder}/a.conf`);
    assertEquals(status, 2);
    assertEquals(JSON.parse(stdout), {
      files: [{ file: `${folder}/a.conf`, kind: "agent", agent_id: "rpi4-1" }],
      findings: [{
        severity: "mistake",
        file: `${folder}/a.conf`,
        line: 7,
        column: 17,
        path: "output_timeout",
        message: "is the number '-1', must be at least 1",
        source: { text: "output_timeout: -1", column: 17 },
      }],
      mistakes: 1,
      warnings: 0,
    });
  });
});

Deno.test("check refuses a format and a connector that it does not know, with a suggestion", async () => {
  const format = await run("check", "--format", "xml");
  assertEquals([format.status, format.stderr], [
    2,
    "--format must be 'text' or 'json': it is 'xml'\n",
  ]);
  const connector = await run("check", "--connector", "muxpy", "x");
  assertEquals([connector.status, connector.stderr], [
    2,
    "there is no device connector 'muxpy', did you mean 'muxpi'?\n",
  ]);
});

Deno.test("check says of a file that it cannot read why not", async () => {
  const { status, stdout } = await run("check", "/no/such/file.conf");
  assertEquals(status, 2);
  assertEquals(
    stdout,
    "/no/such/file.conf: cannot be read: there is no such file\n1 file: 1 mistake, 0 warnings\n",
  );
});

Deno.test("check names a hook that would never run, or cannot", () =>
  withFiles({
    "a.conf": `${AGENT}connector: fake_connector\nhooks_dir: DIR/hooks\n`,
    "hooks/pre-job": "",
    "hooks/pre-tset": "",
    "hooks/post_cleanup": "",
    "hooks/post-test": "",
    "hooks/pre-provision.old": "",
    "hooks/README": "",
  }, async (folder) => {
    await Deno.chmod(`${folder}/hooks/pre-job`, 0o755);
    const { status, stdout } = await run("check", `${folder}/a.conf`);
    assertEquals([status, stdout.replaceAll(`${folder}/`, "")], [
      0,
      "a.conf:8:12: warning: hooks_dir: 'post-test' in it cannot be run: make it executable\n" +
      "a.conf:8:12: warning: hooks_dir: 'post_cleanup' in it is no hook and will not run, did you mean 'post-cleanup'?\n" +
      "a.conf:8:12: warning: hooks_dir: 'pre-tset' in it is no hook and will not run, did you mean 'pre-test'?\n" +
      "1 file: 0 mistakes, 3 warnings\n",
    ]);
  }));

Deno.test("what the runtime keeps closed is said in plain words, whether folder or file", async () => {
  const closed = "must not be below /dev, /proc or /sys, which are closed to this program";
  for (const key of ["execution_basedir", "logging_basedir", "results_basedir"]) {
    const { status, lines } = await check({
      "a.conf": AGENT.replace(new RegExp(`^${key}: .*$`, "m"), `${key}: /dev/../dev/shm/x`),
    }, (folder) => [`${folder}/a.conf`]);
    assertEquals(status, 2);
    assertStringIncludes(lines[0] ?? "", `${key}: is the text '/dev/../dev/shm/x', ${closed}`);
  }
  for (const args of [["check"], ["try"], ["submit"], ["-c"]]) {
    for (const file of ["/dev/shm/a.conf", "/proc/self/stat", "/sys/a"]) {
      const { status, stdout, stderr } = await run(...args, file);
      assertEquals(status, 2);
      const text = stdout + stderr;
      assertStringIncludes(text, "what is below /dev, /proc and /sys is closed to this program");
      assertEquals(text.includes("--allow-all"), false, text);
    }
  }
});
