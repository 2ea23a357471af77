import type { UnpackLimits, UnpackResult } from "../../../lib/job/attachments/unpack.ts";

/** Limits of the tests; tests/fixtures/archives/make.py has archives just above them. */
export const LIMITS: UnpackLimits = {
  maxDownload: 64 * 1024 * 1024,
  maxSize: 96 * 1024 * 1024,
  maxRatio: 200,
  maxMembers: 1000,
  maxName: 255,
};

/** The result as the refusal that a test expects. */
export function refused(result: UnpackResult): UnpackResult & { ok: false } {
  if (result.ok) throw new Error(`unpacked ${result.members} members instead of refusing`);
  return result;
}

/** The result as the success that a test expects. */
export function unpacked(result: UnpackResult): UnpackResult & { ok: true } {
  if (!result.ok) throw new Error(`refused: ${result.reason}`);
  return result;
}

/** A stream of these bytes in chunks of `step`. */
export function streamOf(bytes: Uint8Array, step = 64 * 1024): ReadableStream<Uint8Array> {
  let sent = 0;
  return new ReadableStream({
    pull(controller) {
      if (sent >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(sent, sent + step));
      sent += step;
    },
  }, { highWaterMark: 0 });
}

/** Bytes that cannot be compressed. */
export function noise(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const MOST_AT_ONCE = 65_536;
  for (let start = 0; start < length; start += MOST_AT_ONCE) {
    crypto.getRandomValues(bytes.subarray(start, start + MOST_AT_ONCE));
  }
  return bytes;
}

/** A temporary folder that goes when the test ends. */
export class TempFolder implements AsyncDisposable {
  readonly path: string = Deno.makeTempDirSync({ prefix: "attachments-" });

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** All that is in a folder: paths below it with what they are, sorted. Follows no link. */
export function treeOf(folder: string, below = ""): { path: string; info: Deno.FileInfo }[] {
  const entries: { path: string; info: Deno.FileInfo }[] = [];
  for (const { name } of Deno.readDirSync(`${folder}/${below}`)) {
    const path = below === "" ? name : `${below}/${name}`;
    const info = Deno.lstatSync(`${folder}/${path}`);
    entries.push({ path, info });
    if (info.isDirectory) entries.push(...treeOf(folder, path));
  }
  return entries.sort((a, b) => a.path < b.path ? -1 : 1);
}

/** A folder beside the one that is unpacked into, which nothing may touch. */
export class Canary {
  readonly #root: string;
  readonly #before: string;

  constructor(root: string) {
    this.#root = root;
    Deno.mkdirSync(`${root}/canary/test`, { recursive: true });
    Deno.writeTextFileSync(`${root}/canary/secret`, "secret\n", { mode: 0o600 });
    Deno.writeTextFileSync(`${root}/canary/test/a`, "not hello\n");
    this.#before = this.#state();
  }

  /** What has changed beside `attachments/`; undefined when nothing has. */
  change(): string | undefined {
    const now = this.#state();
    return now === this.#before ? undefined : `${this.#before}\nis now\n${now}`;
  }

  #state(): string {
    const beside = [...Deno.readDirSync(this.#root)].map((entry) => entry.name)
      .filter((name) => name !== "attachments").sort();
    return JSON.stringify([
      beside,
      treeOf(`${this.#root}/canary`).map(({ path, info }) => [
        path,
        info.mode,
        info.size,
        info.nlink,
        info.ino,
        info.mtime,
        // Changes with everything that is done to a file, and nobody can set it back.
        info.ctime,
      ]),
    ]);
  }
}
