/** What an agent's user finds and can write on this host. Nothing is made to find out. */
import { dirname, isAbsolute, join, resolve } from "node:path";
import { type AgentUser, canWriteIn, isReadOnly, modeAllows } from "../agents/agent_user.ts";

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

/** Why files cannot be written below `folder` by that user; undefined where they can. */
export async function whyNotWritable(
  folder: string,
  user: AgentUser,
): Promise<string | undefined> {
  let existing = resolve(folder);
  while (true) {
    try {
      const { isDirectory } = await Deno.stat(existing);
      if (!isDirectory) return `${existing} is not a folder`;
      break;
    } catch (error) {
      if (!isMissing(error)) return `${existing} cannot be looked at from this account`;
      const parent = dirname(existing);
      if (parent === existing) return "there is no such folder";
      existing = parent;
    }
  }
  if (await isReadOnly(existing)) return `${existing} is on a file system that cannot be written`;
  return await canWriteIn(existing, user)
    ? undefined
    : `${existing} cannot be written by ${user.name}, as whom the agent runs`;
}

/** Also below something that is no folder: the loop says so when it gets there. */
function isMissing(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory;
}
