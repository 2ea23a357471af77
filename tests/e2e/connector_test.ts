import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { PROGRAM, startProgram } from "./built_program.ts";
import { Lab } from "../support/lab.ts";

/** A complete agent in less than a dozen lines. */
async function agentFile(lab: Lab, device: string): Promise<string> {
  await Deno.writeTextFile(join(lab.folder, "device.yaml"), device);
  const config = join(lab.folder, "agent.conf");
  await Deno.writeTextFile(
    config,
    [
      `agent_id: connector-${crypto.randomUUID().slice(0, 8)}`,
      `server_address: ${lab.served.url}`,
      "job_queues: [queue-1]",
      "connector: fake_connector",
      "connector_config: device.yaml",
      "min_free_space: 0",
      ...["execution", "logging", "results"].map((name) =>
        `${name}_basedir: ${lab.folder}/${name}`
      ),
    ].join("\n"),
  );
  return config;
}

Deno.test("a configuration of a few lines with 'connector' runs every phase with the built-in connector", async () => {
  await using lab = await Lab.open();
  const config = await agentFile(lab, "agent_name: rpi4\ndevice_ip: 10.1.1.1\n");
  const jobId = lab.submit({
    provision_data: { url: "http://image" },
    test_data: { test_cmds: "echo testing on $AGENT_NAME" },
    reserve_data: { timeout: 0 },
  });
  await using agent = startProgram(["-c", config]);
  await lab.complete(jobId);
  assertEquals(lab.statuses(jobId), {
    setup: 0,
    provision: 0,
    test: 0,
    reserve: 0,
    cleanup: 0,
  });
  assertStringIncludes(lab.output(jobId, "setup"), "rpi4 INFO: DEVICE CONNECTOR: The device conf");
  assertStringIncludes(lab.output(jobId, "provision"), '"url": "http://image"');
  assertStringIncludes(lab.output(jobId, "test"), "testing on rpi4\n");
  assertEquals(lab.sandbox.result(jobId)?.device_info, {
    device_ip: "10.1.1.1",
    agent_name: "rpi4",
  });
  agent.kill("SIGTERM");
  assertEquals(await agent.exited, 0);
});

Deno.test("mistakes in the device configuration end a job in setup, all of them named", async () => {
  await using lab = await Lab.open();
  const config = await agentFile(lab, "agent_name: 7\nserial_port: ttyS0\nreboot_script: {}\n");
  // With the key 'connector' the agent would be offline.
  const command = (stage: string) =>
    `${stage}_command: exec ${PROGRAM} device-connector fake_connector ${stage} ` +
    `-c ${lab.folder}/device.yaml testflinger.json`;
  const text = await Deno.readTextFile(config);
  await Deno.writeTextFile(
    config,
    text.replace(/connector: .*\n.*\n/, `${command("setup")}\n${command("cleanup")}\n`),
  );
  const jobId = lab.submit({
    provision_data: { url: "http://image" },
    test_data: { test_cmds: "echo never" },
  });
  await using agent = startProgram(["-c", config]);
  await lab.complete(jobId);
  assertEquals(lab.statuses(jobId), { setup: 1, cleanup: 1 });
  for (const place of ["1:13: agent_name: ", "2:14: serial_port: ", "3:16: reboot_script: "]) {
    assertStringIncludes(lab.output(jobId, "setup"), `device.yaml:${place}`);
  }
  agent.kill("SIGTERM");
  assertEquals(await agent.exited, 0);
});

Deno.test("a connector that does not exist, or without its file, is named before anything is done", async () => {
  await using lab = await Lab.open();
  const config = join(lab.folder, "agent.conf");
  const head = "agent_id: a\nserver_address: x\njob_queues: [q]\n";
  await Deno.writeTextFile(config, `${head}connector: nonesuch\nconnector_config: d.yaml\n`);
  await using unknown = startProgram(["-c", config]);
  assertEquals(await unknown.exited, 2);
  assertStringIncludes(
    unknown.output(),
    "agent.conf:4:12: connector: there is no device connector 'nonesuch', there are: ",
  );
  assertStringIncludes(unknown.output(), "   4 | connector: nonesuch\n     |            ^\n");
  await Deno.writeTextFile(config, `${head}connector: muxpi\n`);
  await using without = startProgram(["-c", config]);
  assertEquals(await without.exited, 2);
  assertStringIncludes(without.output(), "'muxpi' must come with connector_config");
});

Deno.test("fake_connector needs no file: three lines and its name are a configuration", async () => {
  await using lab = await Lab.open();
  const config = await agentFile(lab, "");
  const text = await Deno.readTextFile(config);
  await Deno.writeTextFile(config, text.replace("connector_config: device.yaml\n", ""));
  const jobId = lab.submit({
    provision_data: { url: "http://image" },
    test_data: { test_cmds: "echo testing on $AGENT_NAME" },
  });
  await using agent = startProgram(["-c", config]);
  await lab.complete(jobId);
  const [id] = /connector-[0-9a-f]{8}/.exec(text) ?? [];
  assertEquals(lab.statuses(jobId), { setup: 0, provision: 0, test: 0, cleanup: 0 });
  assertStringIncludes(lab.output(jobId, "test"), `testing on ${id}\n`);
  assertEquals(lab.sandbox.result(jobId)?.device_info, { agent_name: id });
  agent.kill("SIGTERM");
  assertEquals(await agent.exited, 0);
});
