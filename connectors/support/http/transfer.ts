/** One file on its way from a server to disk. */
import { unlessAborted } from "../../../lib/wait.ts";
import { writeAll } from "../../../lib/bytes.ts";
import { createHash, type Hash } from "node:crypto";
import { statfs } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { requestMessageOf } from "../../../lib/message.ts";
import { basename, dirname } from "../../../lib/path.ts";
import type { Progress } from "../../../lib/progress.ts";
import type { ConnectorContext } from "../../context.ts";
import { fullMessageOf, ProvisioningError } from "../errors.ts";
import { systemReason } from "../files.ts";
import { progressOf } from "../log.ts";
import { timeLimit } from "../wait/time_limit.ts";

const ATTEMPTS = 3;
const ATTEMPT_PAUSE_MS = 2_000;
const CONNECT_TIMEOUT_MS = 30_000;
/** There is no limit on the whole: a slow link is not a dead one. */
const STALL_TIMEOUT_MS = 60_000;

/** The largest file system is no use when it is full to the last byte. */
export const SPARE_BYTES = 64 * 1024 * 1024;

/** How much of a beginning is read at once. */
const READ_BYTES = 1024 * 1024;

/** What a server calls a version of a file. */
export interface Validators {
  readonly etag?: string | undefined;
  readonly lastModified?: string | undefined;
}

/** Where a file goes to, and what is there of it already. */
export interface FetchTarget {
  /** The file; created again, except with `resume`. */
  readonly path: string;
  /** What to call it in a progress report. @default the last part of the URL's path */
  readonly name?: string;
  /** The beginning of the file is at `path`, of the version with these validators. */
  readonly resume?: Validators | undefined;
  /** A version that need not be sent again. */
  readonly known?: Validators | undefined;
  /**
   * Told what the server says of the file before it is written. What it throws ends the transfer.
   *
   * @param size of the whole, in bytes; undefined where the server does not say.
   */
  readonly onHead?: (size: number | undefined, validators: Validators) => Promise<void>;
  /** Told how many bytes there are of it now. */
  readonly onBytes?: (size: number) => void;
}

/** What came of it. */
export type Fetched =
  | { readonly ended: "not modified" }
  | {
    readonly ended: "fetched";
    readonly size: number;
    readonly sha256: string;
    readonly validators: Validators;
  };

/**
 * Writes what is at a URL to a file, as it comes; a transfer that breaks off is resumed.
 *
 * @throws ProvisioningError saying what is wrong with the server or the file.
 */
export async function fetchFile(
  ctx: ConnectorContext,
  url: URL,
  target: FetchTarget,
): Promise<Fetched> {
  await using transfer = await Transfer.begin(ctx, url, target);
  return await transfer.run();
}

/** Worth another try. */
class Interrupted extends Error {}

/** One file on its way. */
class Transfer implements AsyncDisposable {
  #file: Deno.FsFile;
  #hash: Hash = createHash("sha256");
  #size = 0;
  /** Of what there is: a resumed half must fit the first one. */
  #validators: Validators = {};
  #isKnown = false;

  private constructor(
    readonly ctx: ConnectorContext,
    readonly url: URL,
    readonly target: FetchTarget,
    file: Deno.FsFile,
  ) {
    this.#file = file;
  }

  static async begin(
    ctx: ConnectorContext,
    url: URL,
    target: FetchTarget,
  ): Promise<Transfer> {
    const resumes = target.resume !== undefined;
    const file = await Deno.open(target.path, {
      read: true,
      write: true,
      create: true,
      truncate: !resumes,
      mode: 0o600,
    }).catch((error) => {
      throw cannotKeep(target, error);
    });
    const transfer = new Transfer(ctx, url, target, file);
    if (resumes) await transfer.#readBeginning();
    return transfer;
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#file.close();
    return Promise.resolve();
  }

  async #readBeginning(): Promise<void> {
    const buffer = new Uint8Array(READ_BYTES);
    for (let read = await this.#file.read(buffer); read !== null;) {
      this.#hash.update(buffer.subarray(0, read));
      this.#size += read;
      read = await this.#file.read(buffer);
    }
    this.#validators = this.target.resume ?? {};
  }

  async run(): Promise<Fetched> {
    const { ctx } = this;
    for (let attempt = 1;; attempt++) {
      try {
        if (this.url.protocol === "file:") await this.#copy();
        else await this.#attempt();
        if (this.#isKnown) return { ended: "not modified" };
        return {
          ended: "fetched",
          size: this.#size,
          sha256: this.#hash.digest("hex"),
          validators: this.#validators,
        };
      } catch (error) {
        ctx.signal.throwIfAborted();
        if (!(error instanceof Interrupted)) throw error;
        if (attempt >= ATTEMPTS) throw this.#failure(error);
        ctx.log.warning(
          `The download of ${shownUrl(this.url)} broke off after ${this.#size} bytes: ` +
            `${error.message}; trying again`,
        );
        await ctx.clock.sleep(ATTEMPT_PAUSE_MS, ctx.signal);
      }
    }
  }

  #failure(error: unknown): ProvisioningError {
    return new ProvisioningError(`Cannot download ${shownUrl(this.url)}: ${fullMessageOf(error)}`, {
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
    await this.target.onHead?.(size, {});
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
    if (answer.status === 304) {
      this.#isKnown = true;
      return;
    }
    if (answer.status === 200 || (answer.status === 206 && !this.#continues(answer))) {
      if (this.#size > 0) await this.#restart();
      if (answer.status === 206) {
        await answer.body?.cancel();
        throw new Interrupted("the server sent another part than the one it was asked for");
      }
    }
    this.#validators = {
      etag: answer.headers.get("etag") ?? undefined,
      lastModified: answer.headers.get("last-modified") ?? undefined,
    };
    const length = answer.headers.get("content-length");
    // The length is that of the encoded body, which is not what arrives here.
    const expected = length === null || answer.headers.has("content-encoding")
      ? undefined
      : this.#size + Number(length);
    try {
      await this.target.onHead?.(expected, this.#validators);
      if (expected !== undefined) await this.#checkSpace(expected - this.#size);
    } catch (error) {
      await answer.body?.cancel();
      throw error;
    }
    const progress = this.#progress(expected);
    try {
      await this.#receive(answer, progress);
    } finally {
      progress.end();
    }
    if (expected !== undefined && this.#size !== expected) {
      throw new Interrupted(`${this.#size} of ${expected} bytes arrived`);
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
      throw new Interrupted(requestMessageOf(error));
    }
    if (answer.status === 200 || answer.status === 206) return answer;
    if (answer.status === 304 && this.target.known !== undefined) return answer;
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
    // An image that was compressed once more on the way would have another length.
    const headers: Record<string, string> = { "accept-encoding": "identity" };
    const { etag, lastModified } = this.#validators;
    if (this.#size > 0) {
      headers.range = `bytes=${this.#size}-`;
      const validator = etag ?? lastModified;
      if (validator !== undefined) headers["if-range"] = validator;
      return headers;
    }
    const { known } = this.target;
    if (known?.etag !== undefined) headers["if-none-match"] = known.etag;
    if (known?.lastModified !== undefined) headers["if-modified-since"] = known.lastModified;
    return headers;
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
          message: `no data arrived for ${STALL_TIMEOUT_MS / 1000} s`,
        });
        const { done, value } = await unlessAborted(reader.read(), stall.signal);
        if (done) return;
        await this.#keep(value, progress);
      }
    } catch (error) {
      await reader.cancel().catch(() => {});
      if (error instanceof ProvisioningError) throw error;
      throw new Interrupted(requestMessageOf(error));
    }
  }

  async #keep(bytes: Uint8Array, progress: Progress): Promise<void> {
    try {
      await writeAll(this.#file, bytes);
    } catch (error) {
      throw cannotKeep(this.target, error);
    }
    this.#hash.update(bytes);
    this.#size += bytes.length;
    progress.at(this.#size);
    this.target.onBytes?.(this.#size);
  }

  /** Another file, not the same one made empty: another process may read that. */
  async #restart(): Promise<void> {
    this.#file.close();
    await Deno.remove(this.target.path);
    this.#file = await Deno.open(this.target.path, { write: true, createNew: true, mode: 0o600 });
    this.#hash = createHash("sha256");
    this.#size = 0;
  }

  async #checkSpace(needed: number): Promise<void> {
    const { bavail, bsize } = await statfs(dirname(this.target.path));
    const free = bavail * bsize;
    if (needed + SPARE_BYTES <= free) return;
    throw new CannotKeep(
      `Cannot download ${
        shownUrl(this.url)
      }: it needs ${needed} bytes, and only ${free} are free in ` +
        `${dirname(this.target.path)}`,
    );
  }

  #progress(total: number | undefined): Progress {
    return progressOf(this.ctx, {
      what: `Downloading ${this.target.name ?? nameOf(this.url)}`,
      total,
    });
  }
}

/** It is this host's disk, and no fault of the server. */
export class CannotKeep extends ProvisioningError {}

function cannotKeep({ path }: FetchTarget, error: unknown): CannotKeep {
  return new CannotKeep(`Cannot write ${path}: ${systemReason(error)}`, { cause: error });
}

/** A URL for messages, without a password that it may carry. */
export function shownUrl(url: URL): string {
  const copy = new URL(url);
  if (copy.password !== "") copy.password = "***";
  return copy.href;
}

/** The last part of a URL's path, for people. */
function nameOf(url: URL): string {
  return basename(url.pathname) || url.hostname;
}
