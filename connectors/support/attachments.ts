import { join } from "../../lib/path.ts";
import type { PrepareContext } from "../context.ts";
import { ProvisioningError } from "./errors.ts";

/**
 * Absolute path of an attachment that a job names, below `attachments/<phase>/`.
 *
 * @param attachment `key` is the job's key that names it, for messages.
 * @throws ProvisioningError when there is none of that name, when it is no file, or when it lies
 *   elsewhere, be it by `..` or by a link: the result is copied to where the job's owner can read it.
 */
export async function attachmentPath(
  { cwd }: Pick<PrepareContext, "cwd">,
  attachment: { readonly phase: "provision" | "test"; readonly name: string; readonly key: string },
): Promise<string> {
  const { phase, name, key } = attachment;
  const folder = join(cwd, "attachments", phase);
  const fail = (why: string) =>
    new ProvisioningError(`Cannot use the attachment '${name}' of '${key}': ${why}`);
  if (name === "" || name.includes("\0")) throw fail("that is no file name");
  let root: string;
  let path: string;
  try {
    root = await Deno.realPath(folder);
    path = await Deno.realPath(join(folder, name));
  } catch {
    throw fail(`there is no such file in attachments/${phase}`);
  }
  if (!path.startsWith(`${root}/`)) throw fail(`it is not inside of attachments/${phase}`);
  if (!(await Deno.stat(path)).isFile) throw fail("it is not a file");
  return path;
}
