/** Portable files of this checkout for both targets, built once for all tests of a file. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PERMISSIONS } from "../../../lib/cli/self.ts";
import { VERSION } from "../../../lib/version.ts";
import type { Target } from "../../../tools/build/targets.ts";
import { ended } from "./command.ts";

export const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

/** Options of {@link buildPortable}. */
export interface BuildOptions {
  /** The checkout to build. @default this one */
  root?: string;
  /** @default all */
  target?: Target;
}

/** Builds into `folder`. */
export async function buildPortable(
  folder: string,
  { root = ROOT, target }: BuildOptions = {},
): Promise<void> {
  const { code, stderr } = await ended(
    new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", ...PERMISSIONS, "tools/build/main.ts", "--packaging=portable", "--out", folder],
        ...(target === undefined ? [] : ["--target", target.name]),
      ],
      cwd: root,
      // What the build tries out is unpacked here, not where this machine's agents look.
      env: { NO_COLOR: "1", XDG_CACHE_HOME: join(folder, "cache") },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn(),
  );
  if (code !== 0) throw new Error(stderr);
}

export function fileFor(folder: string, target: Target): string {
  return join(folder, `testflinger-agent-${VERSION}-${target.arch}`);
}
