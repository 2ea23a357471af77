/** Finding programs as a shell does. */
import { isAbsolute, join } from "node:path";
import { type AgentUser, modeAllows } from "../agents/agent_user.ts";

const USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const EXECUTE = 0o1;

/** Where a program is; undefined where it is not, or the user may not run it. */
export async function findProgram(
  name: string,
  { user, path = Deno.env.get("PATH") ?? USUAL_PATH }: {
    user: AgentUser;
    path?: string | undefined;
  },
): Promise<string | undefined> {
  const candidates = isAbsolute(name)
    ? [name]
    : path.split(":").filter((folder) => folder !== "").map((folder) => join(folder, name));
  for (const candidate of candidates) {
    const info = await Deno.stat(candidate).catch(() => undefined);
    if (info?.isFile === true && modeAllows(info, user, EXECUTE)) return candidate;
  }
  return undefined;
}
