/** The hooks of 00-common section 9. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import * as z from "zod";
import { defineConnector } from "../../connectors/define.ts";
import { runStage } from "../../connectors/run_stage.ts";
import { Lab } from "./support/lab.ts";
import { closedPort, type HttpStub, httpStub, tcpStub } from "./support/stubs.ts";

const POWER_OFF = "POST /api/v1/system/poweroff";
const HEALTH = "GET /health";
const SETUP = "POST /api/v1/system/setup/provisioning";

function lines(host: HttpStub): string[] {
  return host.requests.map(({ method, path }) => `${method} ${path}`);
}

function config(host: { port: number }, more: Record<string, unknown> = {}) {
  return {
    agent_name: "a1",
    control_host: "127.0.0.1",
    control_host_port: host.port,
    control_host_reboot_script: ["echo reboot >> order"],
    ...more,
  };
}

/** A connector that cuts the device's power in the hook, as muxpi does. */
const powered = defineConnector({
  name: "powered",
  summary: "for this test",
  config: {},
  provisionData: { unused: z.string().optional().describe("nothing") },
  powerManagement: true,
  async provision(ctx, { controlHostCycled }) {
    await ctx.print(`cycled: ${controlHostCycled}\n`);
  },
});

async function provisionPowered(lab: Lab): Promise<{ code: number; stdout: string }> {
  const never = new AbortController().signal;
  let stdout = "";
  const code = await runStage(
    { connector: powered, stage: "provision", configFile: "c.yaml", jobFile: "testflinger.json" },
    {
      cwd: lab.cwd,
      env: lab.env(),
      clock: lab.clock.pauses,
      limits: lab.clock.limits,
      signal: never,
      forceStop: never,
      stdout: (bytes) => {
        stdout += new TextDecoder().decode(bytes);
        return Promise.resolve();
      },
      stderr() {},
    },
  );
  return { code, stdout };
}

Deno.test("07-control-host-iot correction: the serial log is there before the hook cuts any power", async () => {
  await using lab = await Lab.open();
  await using host = httpStub(() => new Response());
  await lab.config(config(host, {
    control_host_reboot_script: ["ls provision-serial.log > seen"],
    serial_host: "127.0.0.1",
    serial_port: closedPort(),
  }));
  await lab.job({});
  await lab.fake("ping", "exit 1");
  assertEquals((await provisionPowered(lab)).code, 0);
  assertEquals(await lab.read("seen"), "provision-serial.log\n");
});

Deno.test("the control host is powered off, given time to shut down, rebooted, and waited for", async () => {
  await using lab = await Lab.open();
  let health = 0;
  await using host = httpStub(({ path }) =>
    new Response("", { status: path === "/health" && ++health < 3 ? 503 : 200 })
  );
  await lab.config(config(host));
  await lab.job({});
  await lab.fake("ping", '[ "$n" -lt 3 ]');
  assertEquals((await lab.stage("fake_connector", "provision")).code, 0);
  assertEquals(lines(host), [POWER_OFF, HEALTH, HEALTH, HEALTH, SETUP]);
  assertEquals(host.requests[0]?.body, "");
  assertEquals((await lab.calls("ping"))[0]?.args, ["-c", "1", "-W", "3", "127.0.0.1"]);
  assertEquals(lab.clock.paused, [2_000, 2_000, 10_000, 2_000, 2_000]);
  assertEquals(await lab.read("order"), "reboot\n");
});

Deno.test("a control host that goes on answering pings is rebooted after 30 s all the same", async () => {
  await using lab = await Lab.open();
  await using host = httpStub(() => new Response());
  await lab.config(config(host));
  await lab.job({});
  assertEquals((await lab.stage("fake_connector", "provision")).code, 0);
  assertEquals(lab.clock.elapsed, 30_000);
  assertEquals(await lab.read("order"), "reboot\n");
});

Deno.test("without ping, a port that answers says that the control host is still there", async () => {
  await using lab = await Lab.open();
  await using host = httpStub(() => new Response());
  await lab.config(config(host, { control_host_ssh_port: closedPort() }));
  await lab.job({});
  await lab.remove("ping");
  // Its REST port answers all the time, so it counts as being there until the limit.
  assertEquals((await lab.stage("fake_connector", "provision")).code, 0);
  assertEquals(lab.clock.elapsed, 30_000);
});

Deno.test("a control host that does not come back fails provision, and why its reboot failed is said", async () => {
  for (const [isRecovery, code] of [[false, 1], [true, 46]] as const) {
    await using lab = await Lab.open();
    await using host = httpStub(({ path }) =>
      new Response("", { status: path === "/health" ? 503 : 200 })
    );
    await lab.config(config(host, {
      control_host_reboot_script: ["echo PDU offline; exit 2", "echo second >> order"],
      control_host_unready_is_recovery_error: isRecovery,
    }));
    await lab.job({});
    await lab.fake("ping", "exit 1");
    assertEquals((await lab.stage("fake_connector", "provision")).code, code);
    assertEquals(lab.clock.elapsed, 310_000);
    const message = (await lab.failure("provision")).exception_message ?? "";
    assertStringIncludes(message, "127.0.0.1 was not ready 300 s");
    assertStringIncludes(message, "PDU offline");
    assertEquals(await lab.read("order"), "second\n");
  }
});

Deno.test("a control host without the service is left alone as long as its ssh port answers", async () => {
  await using lab = await Lab.open();
  await using host = httpStub(({ path }) =>
    new Response("", { status: path.endsWith("poweroff") ? 404 : 200 })
  );
  await using ssh = tcpStub((client) => client.close());
  await lab.config(config(host, { control_host_ssh_port: ssh.port }));
  await lab.job({});
  assertEquals((await lab.stage("fake_connector", "provision")).code, 0);
  assertEquals(lines(host), [POWER_OFF, SETUP]);
  assert(!await lab.has("order"));
});

Deno.test("a dead control host is rebooted and waited for on its ssh port; provision goes on in any case", async () => {
  await using lab = await Lab.open();
  const port = closedPort();
  await lab.config(config({ port }, { control_host_ssh_port: port }));
  await lab.job({});
  const { code, stderr } = await lab.stage("fake_connector", "provision");
  assertEquals(code, 0);
  assertEquals(await lab.read("order"), "reboot\n");
  assertEquals(lab.clock.elapsed, 300_000);
  assertStringIncludes(stderr, `does not answer on port ${port}`);
});

Deno.test("the device's power is cut before the control host goes, and given back at the end", async () => {
  await using lab = await Lab.open();
  await using host = httpStub(() => new Response());
  await lab.config(config(host, {
    poweroff_script: ["false", "echo off >> order"],
    poweron_script: ["echo on >> order"],
  }));
  await lab.job({});
  await lab.fake("ping", "exit 1");
  assertEquals(await provisionPowered(lab), { code: 0, stdout: "cycled: true\n" });
  assertEquals(await lab.read("order"), "off\nreboot\non\n");
});

Deno.test("the device gets its power back also when the control host does not", async () => {
  await using lab = await Lab.open();
  await using host = httpStub(({ path }) =>
    new Response("", { status: path === "/health" ? 500 : 200 })
  );
  await lab.config(config(host, {
    poweroff_script: "echo off >> order",
    poweron_script: "echo on >> order",
  }));
  await lab.job({});
  await lab.fake("ping", "exit 1");
  assertEquals((await provisionPowered(lab)).code, 1);
  assertEquals(await lab.read("order"), "off\nreboot\non\n");
});

Deno.test("only one of the two power scripts is none", async () => {
  await using lab = await Lab.open();
  await using host = httpStub(() => new Response());
  await lab.config(config(host, { poweroff_script: "echo off >> order" }));
  await lab.job({});
  await lab.fake("ping", "exit 1");
  assertEquals((await provisionPowered(lab)).code, 0);
  assertEquals(await lab.read("order"), "reboot\n");
});

Deno.test("other connectors leave the device's power alone", async () => {
  await using lab = await Lab.open();
  await using host = httpStub(() => new Response());
  await lab.config(config(host, {
    poweroff_script: "echo off >> order",
    poweron_script: "echo on >> order",
  }));
  await lab.job({});
  await lab.fake("ping", "exit 1");
  assertEquals((await lab.stage("fake_connector", "provision")).code, 0);
  assertEquals(await lab.read("order"), "reboot\n");
});

Deno.test("a hook command that hangs is ended after 60 s, and the next one runs", async () => {
  await using lab = await Lab.open();
  await using host = httpStub(() => new Response());
  await lab.config(config(host, { control_host_reboot_script: ["pdu", "echo next >> order"] }));
  await lab.job({});
  await lab.fake("ping", "exit 1");
  await lab.fake("pdu", "hang");
  assertEquals((await lab.stage("fake_connector", "provision")).code, 0);
  assertEquals(lab.clock.elapsed, 70_000);
  assertEquals(await lab.read("order"), "next\n");
});
