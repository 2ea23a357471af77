/** What is wrong with the programs of `hooks_dir`: a hook with a slip in its name would never run, and nobody would know. */
import { didYouMean, quoted } from "../../config/mistake.ts";
import { HOOK_NAMES } from "../../job/hooks.ts";
import { join } from "../../path.ts";

/** One warning for each file that looks like a hook and is none, or that cannot be run. */
export async function hookWarnings(folder: string): Promise<string[]> {
  const names: string[] = [];
  try {
    for await (const { name } of Deno.readDir(folder)) names.push(name);
  } catch {
    return ["is no folder that can be read: no hook will run"];
  }
  const warnings: string[] = [];
  for (const name of names.sort()) {
    if (HOOK_NAMES.includes(name)) {
      const { mode } = await Deno.stat(join(folder, name)).catch(() => ({ mode: null }));
      if (mode === null || (mode & 0o111) === 0) {
        warnings.push(`${quoted(name)} in it cannot be run: make it executable`);
      }
      // What has another ending was put aside on purpose.
    } else if (/^(?:pre|post)[-_][a-z_-]+$/i.test(name)) {
      const meant = didYouMean(name, HOOK_NAMES);
      warnings.push(
        `${quoted(name)} in it is no hook and will not run` +
          (meant === undefined ? "" : `, did you mean ${quoted(meant)}?`),
      );
    }
  }
  return warnings;
}
