/** The commit that `root` is at, with `-dirty` if its files differ; `unknown` without git. */
export async function commitOf(root: string): Promise<string> {
  const commit = await git(root, ["rev-parse", "HEAD"]);
  if (commit === undefined) return "unknown";
  const changes = await git(root, ["status", "--porcelain"]);
  return changes === "" ? commit : `${commit}-dirty`;
}

async function git(root: string, args: string[]): Promise<string | undefined> {
  try {
    const { success, stdout } = await new Deno.Command("git", {
      args,
      cwd: root,
      stdin: "null",
      stderr: "null",
    }).output();
    return success ? new TextDecoder().decode(stdout).trim() : undefined;
  } catch (error) {
    // No git on this machine: a source archive is built.
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
