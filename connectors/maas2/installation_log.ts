import { join } from "node:path";
import * as z from "zod";
import { messageOf } from "../support/errors.ts";
import { writeFile } from "../support/files.ts";
import type { MaasSession } from "./machine.ts";

const FILE_NAME = "maas-installation.log";

/** How much of it goes into the job's log: what went wrong stands at the end. */
const LOGGED_MAX_CHARS = 1_000_000;

/** The newest installation that MAAS knows of; undefined when there is none, or MAAS does not say. */
export async function newestInstallation(session: MaasSession): Promise<number | undefined> {
  const { ctx, maas } = session;
  try {
    const results = await maas.read(
      ["node-script-results", "read", maas.node, "type=installation"],
      { step: "list the machine's installations", schema: z.array(z.unknown()) },
    );
    const ids = results.flatMap((result) => {
      const parsed = z.looseObject({ id: z.int() }).safeParse(result);
      return parsed.success ? [parsed.data.id] : [];
    });
    return ids.length === 0 ? undefined : Math.max(...ids);
  } catch (error) {
    ctx.signal.throwIfAborted();
    ctx.log.warning(messageOf(error));
    return undefined;
  }
}

/**
 * Puts the log of the installation that has failed into the job's log, and all of it into
 * `maas-installation.log`. Never throws but when the connector is stopped: the real error is to be
 * seen.
 *
 * @param before the newest installation before this one.
 */
export async function showInstallationLog(
  session: MaasSession,
  before: number | undefined,
): Promise<void> {
  const { ctx, maas } = session;
  const newest = await newestInstallation(session);
  if (newest === undefined || newest === before) return;
  try {
    const text = await maas.call(["node-script-result", "download", maas.node, String(newest)], {
      step: "fetch the installation log",
    });
    const logged = text.length > LOGGED_MAX_CHARS
      ? `(the end of it)\n${text.slice(-LOGGED_MAX_CHARS)}`
      : text;
    ctx.log.info(`Installation log of MAAS: ${logged.trimEnd()}`);
    await writeFile(join(ctx.cwd, FILE_NAME), text);
  } catch (error) {
    ctx.signal.throwIfAborted();
    ctx.log.warning(messageOf(error));
  }
}
