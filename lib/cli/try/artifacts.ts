/** Artifacts as a person wants them: files in a folder. */
import { dirname, join, normalize } from "node:path";
import { unpackTar } from "modern-tar";

/**
 * Writes the artifacts of a job into `folder`, which is made. Nothing is written outside of it.
 *
 * @returns how many files there were.
 */
export async function writeArtifacts(archive: Uint8Array, folder: string): Promise<number> {
  const bytes = new Blob([new Uint8Array(archive)]).stream();
  const entries = await unpackTar(bytes.pipeThrough(new DecompressionStream("gzip")));
  await Deno.mkdir(folder, { recursive: true });
  let files = 0;
  // Links come last, so that nothing can be written through one.
  const links = [];
  for (const entry of entries) {
    const name = normalize(entry.header.name).replace(/^artifacts\/?/, "");
    if (name.startsWith("..") || name.startsWith("/")) continue;
    const path = join(folder, name);
    if (entry.header.type === "directory") {
      await Deno.mkdir(path, { recursive: true });
    } else if (entry.header.type === "symlink") {
      links.push({ path, target: entry.header.linkname ?? "" });
    } else if (entry.data !== undefined) {
      await Deno.mkdir(dirname(path), { recursive: true });
      await Deno.writeFile(path, entry.data, {
        createNew: true,
        mode: (entry.header.mode ?? 0o644) & 0o755,
      });
      files++;
    }
  }
  for (const { path, target } of links) {
    await Deno.symlink(target, path);
    files++;
  }
  return files;
}
