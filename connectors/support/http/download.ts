import { createHash, type Hash } from "node:crypto";
import { statfs } from "node:fs/promises";
import { basename, dirname, isAbsolute, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Progress } from "../../../lib/progress.ts";
import type { ConnectorContext, PrepareContext } from "../../context.ts";
import { messageOf, ProvisioningError } from "../errors.ts";
import { progressOf } from "../progress.ts";
import { timeLimit, unlessAborted } from "../wait/time_limit.ts";

const ATTEMPTS = 3;
const ATTEMPT_PAUSE_MS = 2_000;
const CONNECT_TIMEOUT_MS = 30_000;
/** There is no limit on the whole: a slow link is not a dead one. */
const STALL_TIMEOUT_MS = 60_000;
const CHECKSUMS_TIMEOUT_MS = 30_000;

/** The largest file system is no use when it is full to the last byte. */
const SPARE_BYTES = 64 * 1024 * 1024;

const SHA256 = /^[0-9a-fA-F]{64}$/;

/** What to download. */
export interface DownloadOptions {
  /** http or https; may end with `#sha256=<hex>`. */
  readonly url: string;
  /** Where to put it, relative to the job's folder. Beside it there is `<name>.part` meanwhile. */
  readonly to: string;
  /** Hexadecimal SHA-256 that it must have. */
  readonly sha256?: string | undefined;
}

/** What has been downloaded. */
export interface Downloaded {
  /** Absolute. */
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
}

/**
 * Downloads a file: broken off transfers are resumed, the length and (where one is known) the
 * checksum are compared, free space is looked for first.
 *
 * @throws ProvisioningError saying what is wrong with the URL, the server or the file.
 */
export async function download(
  ctx: ConnectorContext,
  options: DownloadOptions,
): Promise<Downloaded> {
  const url = checkedUrl(ctx, options.url);
  const wanted = await wantedChecksum(ctx, url, options.sha256);
  url.hash = "";
  const path = isAbsolute(options.to) ? options.to : join(ctx.cwd, options.to);
  await using transfer = await Transfer.begin(ctx, { url, path });
  await transfer.run();
  const { size, sha256 } = transfer.result();
  if (wanted !== undefined && sha256 !== wanted) {
    throw new ProvisioningError(
      `${shown(url)} has the checksum ${sha256}, expected ${wanted}: it is not the right file`,
    );
  }
  await Deno.rename(transfer.partPath, path);
  ctx.log.info(`Downloaded ${shown(url)}: ${size} bytes${wanted ? ", checksum right" : ""}`);
  return { path, size, sha256 };
}

/** What a download is checked against before anything is asked of a server. */
type DownloadSource = Pick<DownloadOptions, "url" | "sha256">;

/**
 * Looks at what a job says about a download, without downloading anything.
 *
 * @throws ProvisioningError when the URL or the checksum cannot be used.
 */
export function checkDownload(
  ctx: Pick<PrepareContext, "config">,
  { url, sha256 }: DownloadSource,
): void {
  givenChecksum(checkedUrl(ctx, url), sha256);
}

function checkedUrl({ config }: Pick<PrepareContext, "config">, text: string): URL {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new ProvisioningError(`'${text}' is not a URL`);
  }
  const allowed = ["http:", "https:", ...(config.allow_file_urls ? ["file:"] : [])];
  if (!allowed.includes(url.protocol)) {
    throw new ProvisioningError(
      `Cannot download '${text}': only ${allowed.map((p) => p.slice(0, -1)).join(", ")} URLs are ` +
        `allowed`,
    );
  }
  return url;
}

async function wantedChecksum(
  ctx: ConnectorContext,
  url: URL,
  given: string | undefined,
): Promise<string | undefined> {
  const wanted = givenChecksum(url, given);
  if (wanted !== undefined || !ctx.config.verify_images) return wanted;
  return await publishedChecksum(ctx, url);
}

/** What the job itself says, in `sha256` or behind the URL. */
function givenChecksum(url: URL, given: string | undefined): string | undefined {
  const wanted = given ?? /^#sha256=(.*)$/.exec(url.hash)?.[1];
  if (wanted === undefined) return undefined;
  if (!SHA256.test(wanted)) {
    throw new ProvisioningError(`'${wanted}' is not a SHA-256 checksum: expected 64 hex digits`);
  }
  return wanted.toLowerCase();
}

/** From the `SHA256SUMS` beside the file, if there is one that names it. */
async function publishedChecksum(ctx: ConnectorContext, url: URL): Promise<string | undefined> {
  const sums = new URL("SHA256SUMS", url);
  const name = decodeURIComponent(basename(url.pathname));
  const answer = await ctx.http.send(sums.href, { timeoutMs: CHECKSUMS_TIMEOUT_MS });
  const why = answer.ended === "failed" ? answer.message : `status ${answer.status}`;
  if (answer.ended === "answered" && answer.ok) {
    for (const line of answer.body.split("\n")) {
      const [, sum, file] = /^([0-9a-fA-F]{64})\s+\*?(.+?)\s*$/.exec(line) ?? [];
      if (sum !== undefined && file === name) return sum.toLowerCase();
    }
  }
  ctx.log.warning(
    `${shown(url)} is not verified: ` +
      (answer.ended === "answered" && answer.ok
        ? `${sums.href} does not name it`
        : `${sums.href}: ${why}`),
  );
  return undefined;
}

/** Worth another try. */
class Interrupted extends Error {}

/** One file on its way. */
class Transfer implements AsyncDisposable {
  readonly partPath: string;
  #hash: Hash = createHash("sha256");
  #size = 0;
  /** What identifies the file on the server, so that a resumed half fits the first one. */
  #validator: string | undefined;

  private constructor(
    readonly ctx: ConnectorContext,
    readonly url: URL,
    readonly path: string,
    readonly file: Deno.FsFile,
  ) {
    this.partPath = `${path}.part`;
  }

  static async begin(
    ctx: ConnectorContext,
    { url, path }: { url: URL; path: string },
  ): Promise<Transfer> {
    const file = await Deno.open(`${path}.part`, { write: true, create: true, truncate: true });
    return new Transfer(ctx, url, path, file);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.file.close();
    // Gone already when it got its final name.
    await Deno.remove(this.partPath).catch(() => {});
  }

  result(): { size: number; sha256: string } {
    return { size: this.#size, sha256: this.#hash.digest("hex") };
  }

  async run(): Promise<void> {
    const { ctx } = this;
    for (let attempt = 1;; attempt++) {
      try {
        if (this.url.protocol === "file:") await this.#copy();
        else await this.#attempt();
        return;
      } catch (error) {
        ctx.signal.throwIfAborted();
        if (!(error instanceof Interrupted)) throw error;
        if (attempt >= ATTEMPTS) throw this.#failure(error);
        ctx.log.warning(
          `The download of ${shown(this.url)} broke off after ${this.#size} bytes: ` +
            `${error.message}; trying again`,
        );
        await ctx.clock.sleep(ATTEMPT_PAUSE_MS, ctx.signal);
      }
    }
  }

  #failure(error: unknown): ProvisioningError {
    return new ProvisioningError(`Cannot download ${shown(this.url)}: ${messageOf(error)}`, {
      cause: error,
    });
  }

  async #copy(): Promise<void> {
    let file: Deno.FsFile;
    try {
      file = await Deno.open(fileURLToPath(this.url));
    } catch (error) {
      throw this.#failure(error);
    }
    const { size } = await file.stat();
    await this.#checkSpace(size);
    const progress = this.#progress(size);
    try {
      for await (const chunk of file.readable) {
        this.ctx.signal.throwIfAborted();
        await this.#keep(chunk, progress);
      }
    } finally {
      progress.end();
    }
  }

  async #attempt(): Promise<void> {
    const answer = await this.#ask();
    if (answer.status === 200 || (answer.status === 206 && !this.#continues(answer))) {
      if (this.#size > 0) await this.#restart();
      if (answer.status === 206) {
        await answer.body?.cancel();
        throw new Interrupted("the server sent another part than the one it was asked for");
      }
    }
    this.#validator = answer.headers.get("etag") ?? answer.headers.get("last-modified") ??
      undefined;
    const length = answer.headers.get("content-length");
    // The length is that of the encoded body, which is not what arrives here.
    const expected = length === null || answer.headers.has("content-encoding")
      ? undefined
      : this.#size + Number(length);
    if (expected !== undefined) await this.#checkSpace(expected - this.#size);
    const progress = this.#progress(expected);
    try {
      await this.#receive(answer, progress);
    } finally {
      progress.end();
    }
    if (expected !== undefined && this.#size !== expected) {
      throw new Interrupted(`${this.#size} of ${expected} bytes came`);
    }
  }

  async #ask(): Promise<Response> {
    // Not the limit's own signal: that would end the body too, once the limit is over.
    const own = new AbortController();
    let answer: Response;
    try {
      using limit = timeLimit(this.ctx, {
        ms: CONNECT_TIMEOUT_MS,
        message: `no answer within ${CONNECT_TIMEOUT_MS / 1000} s`,
      });
      answer = await unlessAborted(
        fetch(this.url, { signal: own.signal, headers: this.#headers() }),
        limit.signal,
      );
    } catch (error) {
      own.abort();
      throw new Interrupted(messageOf(error));
    }
    if (answer.status === 200 || answer.status === 206) return answer;
    await answer.body?.cancel();
    if (answer.status === 416) {
      await this.#restart();
      throw new Interrupted("the server does not have the rest");
    }
    const message = `the server answered with status ${answer.status}`;
    if (answer.status >= 500 || answer.status === 408 || answer.status === 429) {
      throw new Interrupted(message);
    }
    throw this.#failure(new Error(message));
  }

  #headers(): Record<string, string> {
    return {
      // An image that was compressed once more on the way would have another length.
      "accept-encoding": "identity",
      ...(this.#size === 0 ? {} : { range: `bytes=${this.#size}-` }),
      ...(this.#size === 0 || this.#validator === undefined ? {} : { "if-range": this.#validator }),
    };
  }

  #continues(answer: Response): boolean {
    const start = /^bytes (\d+)-/.exec(answer.headers.get("content-range") ?? "")?.[1];
    return Number(start) === this.#size;
  }

  async #receive(answer: Response, progress: Progress): Promise<void> {
    const reader = answer.body?.getReader();
    if (reader === undefined) return;
    try {
      while (true) {
        using stall = timeLimit(this.ctx, {
          ms: STALL_TIMEOUT_MS,
          message: `nothing came for ${STALL_TIMEOUT_MS / 1000} s`,
        });
        const { done, value } = await unlessAborted(reader.read(), stall.signal);
        if (done) return;
        await this.#keep(value, progress);
      }
    } catch (error) {
      await reader.cancel().catch(() => {});
      if (error instanceof ProvisioningError) throw error;
      throw new Interrupted(messageOf(error));
    }
  }

  async #keep(bytes: Uint8Array, progress: Progress): Promise<void> {
    try {
      for (let at = 0; at < bytes.length;) at += await this.file.write(bytes.subarray(at));
    } catch (error) {
      throw new ProvisioningError(`Cannot write ${this.partPath}: ${messageOf(error)}`, {
        cause: error,
      });
    }
    this.#hash.update(bytes);
    this.#size += bytes.length;
    progress.at(this.#size);
  }

  async #restart(): Promise<void> {
    await this.file.truncate();
    await this.file.seek(0, Deno.SeekMode.Start);
    this.#hash = createHash("sha256");
    this.#size = 0;
  }

  async #checkSpace(needed: number): Promise<void> {
    const { bavail, bsize } = await statfs(dirname(this.path));
    const free = bavail * bsize;
    if (needed + SPARE_BYTES <= free) return;
    throw new ProvisioningError(
      `Cannot download ${
        shown(this.url)
      }: it needs ${needed} bytes, and only ${free} are free in ` +
        `${dirname(this.path)}`,
    );
  }

  #progress(total: number | undefined): Progress {
    return progressOf(this.ctx, { what: `Downloading ${basename(this.path)}`, total });
  }
}

/** A URL for messages, without a password that it may carry. */
function shown(url: URL): string {
  const copy = new URL(url);
  if (copy.password !== "") copy.password = "***";
  return copy.href;
}
