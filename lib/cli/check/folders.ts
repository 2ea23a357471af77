/** Whether an agent could make and use its folders. Nothing is made to find out. */
import { dirname, resolve } from "node:path";
import { type AgentUser, canWriteIn, isReadOnly } from "../agents/agent_user.ts";

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
