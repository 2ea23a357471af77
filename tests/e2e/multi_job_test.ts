/** A job on several devices: its child jobs run on agents of their own, beside the one of the parent. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { Lab } from "../support/lab.ts";
import { type AgentProcess } from "../support/agent_process.ts";
import { startProgram } from "./built_program.ts";

/** Starts an agent for one queue, with a device configuration. */
async function startAgent(
  lab: Lab,
  name: string,
  { queue, connector, device }: {
    readonly queue: string;
    readonly connector: string;
    readonly device: Record<string, unknown>;
  },
): Promise<AgentProcess> {
  const folder = join(lab.folder, name);
  await Deno.mkdir(folder);
  const write = (file: string, content: unknown) =>
    Deno.writeTextFile(join(folder, file), JSON.stringify(content));
  await write("device.yaml", { agent_name: name, ...device });
  await write("agent.conf", {
    agent_id: `${name}-${crypto.randomUUID().slice(0, 8)}`,
    server_address: lab.config.server_address,
    job_queues: [queue],
    execution_basedir: join(folder, "run"),
    logging_basedir: join(folder, "logs"),
    results_basedir: join(folder, "results"),
    polling_interval: 0.2,
    min_free_space: 0,
    connector,
    connector_config: "device.yaml",
  });
  return startProgram(["-c", join(folder, "agent.conf")], {
    env: {
      PATH: "/usr/bin:/bin",
      TFDC_TIME_SCALE: "0.001",
      DENO_DIR: Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno`,
    },
  });
}

Deno.test("a job of multi gets the devices of its child jobs, and gives them back at its end", async () => {
  await using lab = await Lab.open();
  const { server_address: server } = lab.config;
  await using _parent = await startAgent(lab, "parent", {
    queue: "several",
    connector: "multi",
    device: { testflinger_server: server },
  });
  const child = (name: string, device_ip: string) =>
    startAgent(lab, name, { queue: name, connector: "fake_connector", device: { device_ip } });
  await using _board = await child("board", "10.9.9.1");
  await using _server = await child("server", "10.9.9.2");

  const jobId = lab.submit({
    job_queue: "several",
    provision_data: {
      jobs: ["board", "server"].map((job_queue) => ({ job_queue, provision_data: { url: "x" } })),
    },
    test_data: { test_cmds: "env | grep ^DEVICE_IP | sort; cat job_list.json" },
  });
  await lab.complete(jobId);

  const provisioning = lab.output(jobId, "provision");
  assertEquals(lab.statuses(jobId), { setup: 0, provision: 0, test: 0, cleanup: 0 }, provisioning);
  const tested = lab.output(jobId, "test");
  assertStringIncludes(tested, "10.9.9.1");
  assertStringIncludes(tested, "10.9.9.2");
  const children = [...provisioning.matchAll(/Created job (\S+)/g)].map(([, id = ""]) => id);
  assertEquals(children.length, 2);
  for (const id of children) {
    await lab.until(() => /cancelled|complete/.test(lab.sandbox.state(id) ?? ""), `${id} is over`);
    assertMatch(tested, new RegExp(id));
  }
});
