/** What is secret is in no command line, here or on a device or control host, and in no log. */
import { assert, assertEquals } from "@std/assert";
import { Lab } from "./support/lab.ts";
import { answerAll, SCENES, titleOf } from "./support/scenes.ts";
import { httpStub } from "./support/stubs.ts";

const PASSWORD = "Hunter2-Zx9q";
const TOKEN = "Token-7Gh3w";

for (const scene of SCENES) {
  const { connector, stage, isCommon } = scene;
  // The other stages have nothing to do with either; what a test prints is the agent's to mask.
  if (stage === "runtest" || (isCommon && connector !== "noprovision")) continue;

  Deno.test(`${titleOf(scene)} shows neither the job's password nor the control host's token`, async () => {
    await using lab = await Lab.open();
    await using server = httpStub(answerAll);
    const host = await scene.prepare(lab, server.port);
    const job = await mapping(lab, "testflinger.json");
    await lab.job({ ...job, test_data: { ...Object(job.test_data), test_password: PASSWORD } });
    await lab.config({ ...await mapping(lab, "c.yaml"), control_host_token: TOKEN });
    const { code, stdout, stderr } = await lab.stage(connector, stage);
    assertEquals(code, 0, stderr);
    const shown = [
      // What goes by ssh to another host is among the arguments.
      ...(await lab.calls()).map(({ program, args }) => `${program} ${args.join(" ")}`),
      ...await host?.done() ?? [],
      stdout,
      stderr,
      await lab.read("device-info.json"),
    ];
    // It is in use, and not merely unheard of; an OEM image has another one until it is changed.
    const used = (await lab.calls("sshpass")).map(({ password }) => password);
    assert(used.every((password) => password === PASSWORD || password === "u"), used.join());
    for (const text of shown) assert(!text.includes(PASSWORD) && !text.includes(TOKEN), text);
  });
}

async function mapping(lab: Lab, name: string): Promise<Record<string, unknown>> {
  const value = await lab.json(name);
  // Scenes write nothing else.
  return value as Record<string, unknown>;
}
