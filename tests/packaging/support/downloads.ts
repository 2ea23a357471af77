/** Deno's cache as it is after the downloads of one lock file, for machines that can download nothing. */
import { dirname, join } from "node:path";
import { ROOT } from "./built.ts";

/** Where this machine's Deno keeps packages: a folder for each registry, in it one for each package. */
async function packageCache(): Promise<string> {
  const { stdout } = await new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).output();
  return JSON.parse(new TextDecoder().decode(stdout)).npmCache;
}

/** Copies the packages that a lock file pins, and no others, to what is `DENO_DIR` for another Deno. */
export async function copyDownloads(lock: string, denoDir: string): Promise<void> {
  const { npm } = JSON.parse(await Deno.readTextFile(join(ROOT, lock)));
  const from = await packageCache();
  const to = join(denoDir, "npm");
  await Deno.mkdir(to, { recursive: true });
  const places: string[] = [];
  for await (const { name: registry } of Deno.readDir(from)) {
    for (const title of Object.keys(npm)) {
      const at = title.lastIndexOf("@");
      const place = join(registry, title.slice(0, at), title.slice(at + 1));
      const hasIt = await Deno.stat(join(from, place)).then(() => true, () => false);
      if (hasIt) places.push(place, join(dirname(place), "registry.json"));
    }
  }
  const { success, stderr } = await new Deno.Command("cp", {
    args: ["-a", "--parents", ...places, to],
    cwd: from,
  }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}
