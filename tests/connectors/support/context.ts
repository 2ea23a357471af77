import type { ConnectorContext } from "../../../connectors/context.ts";
import { defineConnector } from "../../../connectors/define.ts";
import { runStage } from "../../../connectors/run_stage.ts";
import type { Lab } from "./lab.ts";

/** Runs `work` as a connector's `provision`, with the real context, and hands on what it throws. */
export async function inStage<T>(
  lab: Lab,
  work: (ctx: ConnectorContext) => Promise<T>,
  signal: AbortSignal = new AbortController().signal,
  env: Readonly<Record<string, string>> = {},
): Promise<T> {
  let outcome: { ok: true; value: T } | { ok: false; error: unknown } | undefined;
  const connector = defineConnector({
    name: "work",
    summary: "for a test",
    config: {},
    provisionData: {},
    async provision(ctx) {
      try {
        outcome = { ok: true, value: await work(ctx) };
      } catch (error) {
        outcome = { ok: false, error };
      }
    },
  });
  if (!await lab.has("c.yaml")) await lab.config({});
  if (!await lab.has("testflinger.json")) await lab.job({});
  let stderr = "";
  await runStage(
    { connector, stage: "provision", configFile: "c.yaml", jobFile: "testflinger.json" },
    {
      cwd: lab.cwd,
      env: lab.env(env),
      clock: lab.clock.pauses,
      limits: lab.clock.limits,
      signal,
      forceStop: new AbortController().signal,
      stdout: () => Promise.resolve(),
      stderr: (text) => {
        stderr += text;
        lab.log.push(...text.split("\n").filter((line) => line !== ""));
      },
    },
  );
  if (outcome === undefined) throw new Error(`The stage did not come so far: ${stderr}`);
  if (!outcome.ok) throw outcome.error;
  return outcome.value;
}
