/** The stage runtest. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Lab } from "./support/lab.ts";
import { httpStub, until } from "./support/stubs.ts";

const CONFIG = { agent_name: "a1", device_ip: "10.1.1.1" };

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

Deno.test("tests run although the control host cannot be told, for want of the file of its certificates", async () => {
  for (
    const [more, warned, asked] of [
      [{ control_host_scheme: "https" }, ["Cannot read 'control_host_ca'"], 0],
      // Nothing is verified by it.
      [{ control_host_scheme: "http" }, [], 1],
    ] as const
  ) {
    await using lab = await Lab.open();
    await using host = httpStub(() => new Response());
    await lab.config({
      ...CONFIG,
      ...more,
      control_host: "127.0.0.1",
      control_host_port: host.port,
      control_host_ca: "/not/in/the/container.pem",
    });
    await lab.job({ test_data: { test_cmds: "echo tested" } });
    const { code, stdout, stderr } = await lab.stage("noprovision", "runtest");
    assertEquals([code, stdout], [0, "tested\n"], stderr);
    for (const words of warned) assertStringIncludes(stderr, words);
    assertEquals(stderr.includes("WARNING"), warned.length > 0, stderr);
    assertEquals(host.requests.length, asked);
  }
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
