/** A small file system of its own, which tests fill up. Mounting needs root. */
import { statfs } from "node:fs/promises";
import { join } from "node:path";
import { unmount } from "./unmount.ts";

/** What tmpfs gives at once. */
const BLOCK_BYTES = 4096;
const MIB = 1024 * 1024;
/** Of files and folders. */
const INODES = 300;

const FILLER = ".filler";

/** What is left on a disk. @default all there is, of either */
export interface Room {
  /** Of 4 KiB each: an empty file needs none. */
  readonly blocks?: number;
  /** And folders. */
  readonly files?: number;
}

/** The file system, until it is disposed of. */
export class SmallDisk implements AsyncDisposable {
  private constructor(readonly folder: string) {}

  /** Mounts it at an empty folder. What it is filled with is in memory. */
  static async mount(folder: string, { mib = 64 } = {}): Promise<SmallDisk> {
    const options = `size=${mib * MIB},nr_inodes=${INODES},mode=700`;
    await run("mount", ["-t", "tmpfs", "-o", options, "tmpfs", folder]);
    return new SmallDisk(folder);
  }

  /** Is it our own, by its name? */
  static isFiller(name: string): boolean {
    return name === FILLER;
  }

  /** Fills it up, but for some room. */
  async leave({ blocks, files }: Room): Promise<void> {
    const filler = join(this.folder, FILLER);
    await Deno.mkdir(filler);
    if (blocks !== undefined) {
      const { bfree } = await statfs(this.folder);
      const bytes = `${(bfree - blocks) * BLOCK_BYTES}`;
      await run("fallocate", ["--length", bytes, join(filler, "blocks")]);
    }
    if (files !== undefined) {
      // Not all that are said to be free can be had.
      let made = 0;
      while (await canMake(join(filler, `${made}`))) made++;
      for (let i = 0; i < files; i++) await Deno.remove(join(filler, `${--made}`));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await unmount(this.folder);
  }
}

/**
 * A command line that runs what follows it, the first word being a folder: where the program itself
 * has a file system of its own, that nobody else sees.
 *
 * @param options for tmpfs: "size=3m".
 */
export function onOwnDisk(options: string): string[] {
  const script = `mount -t tmpfs -o ${options} tmpfs "$1" && shift && exec "$@"`;
  return ["unshare", "--mount", "/bin/sh", "-c", script, "sh"];
}

/** Whether this user and this container may mount. */
export const mayMount: boolean = await (async () => {
  const folder = await Deno.makeTempDir({ prefix: "mount-" });
  try {
    const [program = "", ...args] = [...onOwnDisk("size=1m"), folder, "true"];
    return (await new Deno.Command(program, { args, stderr: "null" }).output()).success;
  } finally {
    await Deno.remove(folder);
  }
})();

async function canMake(path: string): Promise<boolean> {
  try {
    await Deno.writeFile(path, new Uint8Array(), { createNew: true });
    return true;
  } catch {
    return false;
  }
}

async function run(program: string, args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args }).output();
  if (!success) throw new Error(`${program}: ${new TextDecoder().decode(stderr).trim()}`);
}
