import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Lab } from "./support/lab.ts";
import { closedPort } from "./support/stubs.ts";

const FRAME = "*".repeat(40);

Deno.test("01-fake-connector 1: provision prints provision_data between two lines of stars", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1", device_ip: "10.1.1.1" });
  await lab.job({ provision_data: { url: "x", n: 1 } });
  const { code, stdout } = await lab.stage("fake_connector", "provision");
  assertEquals(code, 0);
  const [before, between, ...after] = stdout.split(`${FRAME}\n`);
  assertEquals([before, ...after], ["", ""]);
  assertStringIncludes(between ?? "", `{\n    "url": "x",\n    "n": 1\n}\n`);
});

Deno.test("01-fake-connector 2: an empty job prints {}", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1" });
  await lab.job({});
  const { code, stdout } = await lab.stage("fake_connector", "provision");
  assertEquals(code, 0);
  assertMatch(stdout, /^\{\}$/m);
});

Deno.test("01-fake-connector 3: a job file that is not JSON fails, and the agent is told why", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1" });
  await lab.write("testflinger.json", "{not json");
  const { code } = await lab.stage("fake_connector", "provision");
  assertEquals(code, 1);
  const failure = await lab.failure("provision");
  assertEquals(failure.exception_name, "JobError");
  assertStringIncludes(failure.exception_message ?? "", "testflinger.json' is not JSON");
});

Deno.test("01-fake-connector 4: without device_ip the device info has only the agent's name", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1" });
  await lab.job({});
  assertEquals((await lab.stage("fake_connector", "provision")).code, 0);
  assertEquals(await lab.json("device-info.json"), { device_info: { agent_name: "a1" } });
});

Deno.test("01-fake-connector 5: the exit status of a test is that of the stage", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1" });
  await lab.job({ test_data: { test_cmds: "exit 5" } });
  assertEquals((await lab.stage("fake_connector", "runtest")).code, 5);
  assert(!await lab.has("device-connector-error.json"));
});

Deno.test("01-fake-connector 6: cleanup does not need the job file", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1" });
  const { code } = await lab.run(["fake_connector", "cleanup", "-c", "c.yaml", "absent.json"]);
  assertEquals(code, 0);
  assert(!await lab.has("device-connector-error.json"));
});

Deno.test("01-fake-connector 7: a control host that does not answer does not prevent provisioning", async () => {
  await using lab = await Lab.open();
  await lab.config({ control_host: "127.0.0.1", control_host_port: closedPort() });
  await lab.job({});
  const { code, stderr } = await lab.stage("fake_connector", "provision");
  assertEquals(code, 0);
  assertEquals(stderr.match(/did not take the request 'setup\/provisioning'/g)?.length, 1);
  assert(lab.clock.elapsed <= 10_000);
});

Deno.test("fake_connector does not show values that look like secrets", async () => {
  await using lab = await Lab.open();
  await lab.config({});
  await lab.job({ provision_data: { url: "x", user: { api_key: "s3cret", PASSWORD: "s3cret" } } });
  const { stdout } = await lab.stage("fake_connector", "provision");
  assert(!stdout.includes("s3cret"));
  assertStringIncludes(stdout, `"api_key": "***"`);
});

Deno.test("fake_connector fails as the job asks for", async () => {
  for (
    const [data, code, name] of [
      [{ fake_error: "provisioning" }, 1, "ProvisioningError"],
      [{ fake_error: "recovery" }, 46, "RecoveryError"],
      [{ fake_exit: 46 }, 46, undefined],
      [{ fake_exit: 7 }, 7, undefined],
    ] as const
  ) {
    await using lab = await Lab.open();
    await lab.config({});
    await lab.job({ provision_data: data });
    assertEquals((await lab.stage("fake_connector", "provision")).code, code);
    assertEquals(await lab.has("device-connector-error.json"), name !== undefined);
    if (name) assertEquals((await lab.failure("provision")).exception_name, name);
  }
});

Deno.test("fake_connector takes the time and says on the serial line what the job asks for", async () => {
  await using lab = await Lab.open();
  await lab.config({});
  await lab.job({ provision_data: { fake_sleep: 90, fake_serial: "Linux version 6\n" } });
  assertEquals((await lab.stage("fake_connector", "provision")).code, 0);
  assertEquals(lab.clock.elapsed, 90_000);
  assertEquals(await lab.read("provision-serial.log"), "Linux version 6\n");
});

Deno.test("fake_connector names every wrong key of provision_data", async () => {
  await using lab = await Lab.open();
  await lab.config({});
  await lab.job({ provision_data: { fake_exit: 300, fake_error: "other" } });
  assertEquals((await lab.stage("fake_connector", "provision")).code, 1);
  const message = (await lab.failure("provision")).exception_message ?? "";
  assertStringIncludes(message, "fake_exit: ");
  assertStringIncludes(message, "fake_error: ");
});
