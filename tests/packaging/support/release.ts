/** This checkout's program in several versions, as a lab downloads them. */
import { join } from "node:path";
import { VERSION } from "../../../lib/version.ts";
import { bundle, stampBundle } from "../../../tools/build/bundle.ts";
import { sha256 } from "../../../tools/build/digest.ts";
import { portable } from "../../../tools/build/portable.ts";
import { denoFor } from "../../../tools/build/runtime.ts";
import { ROOT } from "./built.ts";
import { hostTarget } from "./targets.ts";

/** Later than any version that there is. */
export const NEXT_VERSION = "99.0.0";

/** Writes the files for this machine, with SHA256SUMS, into a folder that exists. */
export async function writeRelease(folder: string, versions: readonly string[]): Promise<void> {
  const target = hostTarget();
  const deno = await denoFor(target);
  const bundled = Object.entries(await bundle(join(ROOT, "main.ts"), ROOT));
  let sums = "";
  for (const version of versions) {
    const other = Object.fromEntries(
      bundled.map(([name, text]) => [name, text.replaceAll(`"${VERSION}"`, `"${version}"`)]),
    );
    const program = stampBundle(other, {
      commit: "of-the-test",
      target,
      packaging: "portable",
      notices: "",
    });
    const bytes = await portable({ version, target, deno, program });
    const name = `testflinger-agent-${version}-${target.arch}`;
    await Deno.writeFile(join(folder, name), bytes);
    sums += `${await sha256(bytes)}  ${name}\n`;
  }
  await Deno.writeTextFile(join(folder, "SHA256SUMS"), sums);
}
