/** The frame around a connector, as one that is added has it. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { type Connector, type Stage, STAGES } from "../../connectors/context.ts";
import { defineConnector } from "../../connectors/define.ts";
import { runStage } from "../../connectors/run_stage.ts";
import { ProvisioningError } from "../../connectors/support/errors.ts";
import { Lab } from "./support/lab.ts";
import * as z from "zod";

async function run(
  lab: Lab,
  connector: Connector,
  stage: Stage,
): Promise<{ code: number; stdout: string; stderr: string }> {
  let [stdout, stderr] = ["", ""];
  const never = new AbortController().signal;
  const code = await runStage(
    { connector, stage, configFile: "c.yaml", jobFile: "testflinger.json" },
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
      stderr: (text) => stderr += text,
    },
  );
  return { code, stdout, stderr };
}

Deno.test("every stage of a connector can be its own", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1" });
  await lab.job({ provision_data: { a: 1 } });
  const own = Object.fromEntries(
    STAGES.map((name) => [
      name,
      async (ctx: { stage: Stage; print(text: string): Promise<void> }) => {
        await ctx.print(`own ${ctx.stage}`);
        return 7;
      },
    ]),
  );
  const connector = defineConnector({
    name: "own",
    summary: "for this test",
    config: {},
    provisionData: {},
    provision: async (ctx) => {
      await ctx.print(`own ${ctx.stage}`);
      return 7;
    },
    ...own,
  });
  for (const stage of STAGES) {
    const { code, stdout, stderr } = await run(lab, connector, stage);
    assertEquals([code, stdout], [7, `own ${stage}`], stderr);
  }
});

Deno.test("what prepare returns is provision's plan, and what it refuses ends provision and setup", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1", size: 3 });
  const done: string[] = [];
  const connector = defineConnector({
    name: "planned",
    summary: "for this test",
    config: { size: z.number().default(1).describe("for this test") },
    provisionData: { url: z.string().optional().describe("for this test") },
    prepare(ctx, { data }) {
      done.push(`prepare for ${ctx.stage}`);
      if (data.url === undefined) throw new ProvisioningError("there is no url");
      return { address: `${data.url}/${ctx.config.size}` };
    },
    async provision(_ctx, { plan }) {
      done.push(`provision ${plan.address}`);
      await Promise.resolve();
    },
  });
  await lab.job({ provision_data: { url: "http://x" } });
  for (const stage of STAGES) {
    if (stage === "setup" || stage === "provision") await run(lab, connector, stage);
  }
  assertEquals(done, ["prepare for setup", "prepare for provision", "provision http://x/3"]);

  done.length = 0;
  await lab.job({ provision_data: { other: 1 } });
  for (const stage of ["setup", "provision"] as const) {
    const { code, stderr } = await run(lab, connector, stage);
    assertEquals(code, 1);
    assertStringIncludes(stderr, "ProvisioningError: there is no url");
  }
  assertEquals(done, ["prepare for setup", "prepare for provision"]);
});

Deno.test("setup asks nothing of a job that is not provisioned", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1" });
  const connector = defineConnector({
    name: "strict",
    summary: "for this test",
    config: {},
    provisionData: {},
    needs: ["device_ip"],
    prepare() {
      throw new ProvisioningError("never right");
    },
    provision: () => Promise.resolve(),
  });
  for (
    const job of [
      {},
      { provision_data: null },
      { provision_data: {} },
      { provision_data: { skip: true, url: "x" } },
    ]
  ) {
    await lab.job(job);
    assertEquals((await run(lab, connector, "setup")).code, 0, JSON.stringify(job));
  }
  await lab.job({ provision_data: { url: "x" } });
  assertStringIncludes((await run(lab, connector, "setup")).stderr, "'device_ip' is missing");
});
