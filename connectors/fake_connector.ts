import * as z from "zod";
import { join } from "../lib/path.ts";
import { defineConnector } from "./define.ts";
import { directOnly } from "./support/config.ts";
import { ProvisioningError, RecoveryError } from "./support/errors.ts";

const FRAME = "*".repeat(40);

/** Values of such keys are not shown. */
const SECRET_KEY = /pass|token|secret|key/i;

const ERRORS = { provisioning: ProvisioningError, recovery: RecoveryError };

/** No device at all: for trying an agent. Test commands really run, on the agent's host. */
export const fakeConnector = defineConnector({
  name: "fake_connector",
  summary: "No device at all, for trying out an agent: provision only prints its provision_data.",
  config: {},
  configOptional: true,
  testedAgainst: "the agent and the sandbox server, end to end",
  provisionData: {
    fake_sleep: z.number().nonnegative().optional()
      .describe(directOnly("Seconds that provisioning takes.")),
    fake_serial: z.string().optional()
      .describe(directOnly("Text for provision-serial.log, as if the device had printed it.")),
    fake_error: z.enum(["provisioning", "recovery"]).optional()
      .describe(directOnly("Fail with this kind of error.")),
    fake_exit: z.int().min(0).max(255).optional()
      .describe(directOnly("Exit status of provisioning.")),
  },
  async provision(ctx, { data }) {
    await ctx.print(
      `${FRAME}\nNothing is provisioned: this is the fake connector. It was asked for:\n` +
        `${JSON.stringify(masked(data), null, 4)}\n${FRAME}\n`,
    );
    if (data.fake_serial !== undefined) {
      await Deno.writeTextFile(join(ctx.cwd, "provision-serial.log"), data.fake_serial, {
        append: true,
      });
    }
    if (data.fake_sleep !== undefined) await ctx.clock.sleep(data.fake_sleep * 1000, ctx.signal);
    if (data.fake_error !== undefined) {
      throw new ERRORS[data.fake_error]("The job asked for this error with 'fake_error'");
    }
    return data.fake_exit;
  },
});

function masked(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(masked);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map((
      [key, inner],
    ) => [key, SECRET_KEY.test(key) ? "***" : masked(inner)]),
  );
}
