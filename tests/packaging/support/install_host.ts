/** A host to install on: a folder (`--root`), with small scripts in the place of the program. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { sha256 } from "../../../tools/build/digest.ts";
import { giveAway, inFolder, type Ran, runUnprivileged, writeScript } from "./command.ts";
import { hostTarget, otherTarget } from "./targets.ts";

export const INSTALLER = fileURLToPath(new URL("../../../install.sh", import.meta.url));
export const ARCH = hostTarget().arch;
export const OTHER_ARCH = otherTarget().arch;

/** A host to install on, and a folder with two versions to install. */
export interface Host {
  root: string;
  releases: string;
  installer: string;
  install(...options: string[]): Promise<Ran>;
  /** The version that is installed, by its own word. */
  version(): Promise<string>;
  /** All files, with the bytes of small ones, to compare what two moments have. */
  state(): Promise<Record<string, string>>;
}

/** What stands for the program of a version. */
export function program(version: string, arch = ARCH): string {
  return `#!/bin/sh\narch=${arch}\necho "version ${version}"\n`;
}

/** Writes programs with their SHA256SUMS. */
export async function writeRelease(folder: string, files: Record<string, string>): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  let sums = "";
  for (const [name, text] of Object.entries(files)) {
    await writeScript(join(folder, name), text);
    sums += `${await sha256(new TextEncoder().encode(text))}  ${name}\n`;
  }
  await Deno.writeTextFile(join(folder, "SHA256SUMS"), sums);
}

/** Runs a test on a fresh host. */
export function onHost(
  test: (host: Host) => Promise<void>,
  { shell = ["dash"] }: { shell?: readonly string[] } = {},
): Promise<void> {
  return inFolder(async (folder) => {
    const root = join(folder, "root");
    const releases = join(folder, "releases");
    await Deno.mkdir(root);
    await writeRelease(releases, {
      [`testflinger-agent-1.0.0-${ARCH}`]: program("1.0.0"),
      [`testflinger-agent-1.1.0-${ARCH}`]: program("1.1.0"),
      [`testflinger-agent-1.1.0-${OTHER_ARCH}`]: program("1.1.0", OTHER_ARCH),
    });
    // Where the tests run as root, nobody may not be able to read the checkout.
    const installer = join(folder, "install.sh");
    await Deno.copyFile(INSTALLER, installer);
    await giveAway(folder);
    const bin = join(root, "usr/local/bin");
    await test({
      root,
      releases,
      installer,
      install: (...options) =>
        runUnprivileged([...shell, installer, "--root", root, "--from", releases, ...options]),
      async version() {
        const target = await Deno.readLink(join(bin, "testflinger-agent"));
        return (await runUnprivileged([`${root}${target}`])).stdout.trim();
      },
      state: () => contentsOf(root),
    });
  });
}

/** All files below a folder: their modes and texts, or where links lead. */
export async function contentsOf(folder: string, prefix = ""): Promise<Record<string, string>> {
  let found: Record<string, string> = {};
  for await (const entry of Deno.readDir(join(folder, prefix))) {
    const name = join(prefix, entry.name);
    const path = join(folder, name);
    if (entry.isDirectory) {
      found = { ...found, ...await contentsOf(folder, name) };
    } else if (entry.isSymlink) {
      found[name] = `-> ${await Deno.readLink(path)}`;
    } else {
      const { mode } = await Deno.stat(path);
      found[name] = `${((mode ?? 0) & 0o7777).toString(8)} ${await Deno.readTextFile(path)}`;
    }
  }
  return found;
}
