/** An agent with the key `connector` whose device configuration is wrong. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { serveSandbox } from "../../lib/sandbox/serve.ts";
import { startProgram } from "../support/agent_process.ts";
import { TempFolder } from "../support/temp_folder.ts";

const PATIENCE_MS = 30_000;

Deno.test("an agent whose device configuration is wrong is offline with what is wrong, until it is mended", async () => {
  await using temp = new TempFolder();
  const served = serveSandbox();
  await using _closed = { [Symbol.asyncDispose]: () => served.close() };
  const { sandbox } = served;
  const id = `wrong-${crypto.randomUUID().slice(0, 8)}`;
  const config = temp.at("testflinger-agent.conf");
  await Deno.writeTextFile(
    config,
    JSON.stringify({
      agent_id: id,
      server_address: served.url,
      job_queues: ["wrong"],
      polling_interval: 0.2,
      min_free_space: 0,
      connector: "noprovision",
      connector_config: "device.yaml",
      execution_basedir: temp.at("run"),
      logging_basedir: temp.at("logs"),
      results_basedir: temp.at("results"),
    }),
  );
  const device = join(temp.path, "device.yaml");
  await Deno.writeTextFile(device, "device_ip: 127.0.0.1\nenv: 5\n");
  const jobId = sandbox.submit({ job_queue: "wrong", test_data: { test_cmds: "echo tested" } });
  await using agent = startProgram(["-c", config, "--token-file", temp.at("none")]);
  const until = (isSo: () => boolean) =>
    sandbox.waitFor(isSo, { signal: AbortSignal.timeout(PATIENCE_MS) });
  await until(() => sandbox.agent(id)?.state === "offline");
  const comment = "The device configuration cannot be used: device.yaml:2:6: env: ";
  assertEquals(sandbox.agent(id)?.comment?.startsWith(comment), true, sandbox.agent(id)?.comment);
  assertEquals(sandbox.state(jobId), "waiting");

  // An editor puts another file in its place.
  await Deno.writeTextFile(temp.at("new.yaml"), "device_ip: 127.0.0.1\nenv: {}\n");
  await Deno.rename(temp.at("new.yaml"), device);
  await until(() => sandbox.state(jobId) === "complete");
  assertStringIncludes(sandbox.log(jobId, "output", "test"), "tested");
  assertStringIncludes(agent.output(), "The agent is offline until that is fixed");
});
