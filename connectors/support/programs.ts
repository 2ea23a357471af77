import { access, constants } from "node:fs/promises";
import { join } from "node:path";
import type { ConnectorContext } from "../connector.ts";

/** Is there a program of this name in the connector's PATH? */
export async function hasProgram(
  { env }: Pick<ConnectorContext, "env">,
  name: string,
): Promise<boolean> {
  for (const folder of (env.PATH ?? "/usr/bin:/bin").split(":")) {
    const found = await access(join(folder || ".", name), constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return true;
  }
  return false;
}
