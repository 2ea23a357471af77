/** The machine as MAAS sees it. */
import * as z from "zod";
import type { MaasContext } from "./config.ts";
import type { Maas, MaasCall } from "./client.ts";

/** What the steps of one run share. */
export interface MaasSession {
  readonly ctx: MaasContext;
  readonly maas: Maas;
  /** Show what release and recovery commands print: the job's `debug`. */
  readonly debug: boolean;
}

/** What is read of a machine. */
export interface Machine {
  /** `status_name`: "Ready", "Deploying", "Failed deployment" ... */
  readonly status: string;
  readonly addresses: readonly string[];
}

const machineSchema = z.looseObject({
  status_name: z.string(),
  ip_addresses: z.array(z.string()).nullish(),
});

/** Asks MAAS for the machine's state. Throws ProvisioningError. */
export async function readMachine(
  { maas }: MaasSession,
  options: Pick<MaasCall, "retry"> = {},
): Promise<Machine> {
  const machine = await maas.read(["machine", "read", maas.node], {
    step: "read the machine's status",
    schema: machineSchema,
    ...options,
  });
  return { status: machine.status_name, addresses: machine.ip_addresses ?? [] };
}

/** For `MaasCall.doneAlready`: has the machine got into one of these states? */
export async function isIn(
  session: MaasSession,
  statuses: readonly string[],
): Promise<string | undefined> {
  const { status } = await readMachine(session, { retry: false });
  return statuses.includes(status) ? "" : undefined;
}
