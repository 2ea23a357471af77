/** Looking into archives with the real tool. */

/** The names of the members of a tar.gz, in order. */
export async function membersOf(archive: Uint8Array | undefined): Promise<string[]> {
  if (archive === undefined) return [];
  const tar = new Deno.Command("tar", {
    args: ["-tzf", "-"],
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const writer = tar.stdin.getWriter();
  await writer.write(archive);
  await writer.close();
  const { stdout } = await tar.output();
  return new TextDecoder().decode(stdout).split("\n").filter((line) => line !== "");
}
