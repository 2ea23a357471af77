/** A download of this process, which goes on while what has arrived is read. */
import type { ConnectorContext } from "../../context.ts";
import { expectChecksum } from "../http/download.ts";
import { type Fetched, fetchFile, type FetchTarget } from "../http/transfer.ts";
import type { ArrivedSoFar } from "./image_source.ts";

/** Of an image of unknown size, between two looks at what is free. */
const GROWTH_BYTES = 16 * 1024 * 1024;

/** Which image, and the checksum that the job says it has. */
export interface WantedImage {
  readonly url: URL;
  readonly wanted: string | undefined;
}

/** Where a download goes, and who is told of it. */
interface TransferOptions extends WantedImage {
  readonly path: string;
  readonly resume?: FetchTarget["resume"];
  readonly known?: FetchTarget["known"];
  readonly onHead?: NonNullable<FetchTarget["onHead"]>;
  /** Asked now and then, while nobody knows how large it becomes. What it throws ends it. */
  readonly onGrowth?: () => void;
  /** @param move told where the file is about to be. */
  readonly onFetched?: (
    fetched: Extract<Fetched, { ended: "fetched" }>,
    move: (path: string) => void,
  ) => Promise<void>;
  readonly onEnded?: (how: "kept" | "not modified" | "broke off") => Promise<void>;
}

/** The download. */
export class OwnTransfer {
  readonly path: string;
  /** Resolves when something has arrived, or nothing need arrive. */
  readonly begun: Promise<"arriving" | "not modified">;
  /** Of the whole, in bytes, once something has arrived. */
  total: number | undefined;
  finalPath: string;
  readonly #stop = new AbortController();
  #progress: ArrivedSoFar = { size: 0, isComplete: false, generation: 0 };
  #failure: { readonly error: unknown } | undefined;
  #waiters: (() => void)[] = [];
  readonly #done: Promise<void>;

  constructor(ctx: ConnectorContext, options: TransferOptions) {
    const { url, wanted, path, resume, known, onHead, onGrowth, onFetched, onEnded } = options;
    this.path = this.finalPath = path;
    const begun = Promise.withResolvers<"arriving" | "not modified">();
    this.begun = begun.promise;
    this.begun.catch(() => {});
    let grown = 0;
    let ended: Parameters<NonNullable<typeof onEnded>>[0] = "broke off";
    const run = async () => {
      const signal = AbortSignal.any([ctx.signal, this.#stop.signal]);
      const fetched = await fetchFile({ ...ctx, signal }, url, {
        path,
        resume,
        known,
        onHead: async (size, validators) => {
          this.total = size;
          await onHead?.(size, validators);
        },
        onBytes: (size) => {
          if (this.total === undefined && size >= grown + GROWTH_BYTES) {
            grown = size;
            onGrowth?.();
          }
          const { size: before, generation } = this.#progress;
          this.#progress = {
            size,
            isComplete: false,
            generation: size < before ? generation + 1 : generation,
          };
          begun.resolve("arriving");
          this.#wake();
        },
      });
      if (fetched.ended === "not modified") {
        ended = "not modified";
        return begun.resolve("not modified");
      }
      ended = "kept";
      // Who reads it, too, may not want what this job wants; but nobody takes it unseen later.
      const isWanted = wanted === undefined || wanted === fetched.sha256;
      await onFetched?.(isWanted ? fetched : { ...fetched, validators: {} }, (path) => {
        this.finalPath = path;
      });
      expectChecksum(url, { found: fetched.sha256, wanted });
      this.#progress = { ...this.#progress, size: fetched.size, isComplete: true };
      begun.resolve("arriving");
    };
    this.#done = run().catch((error) => {
      this.#failure = { error };
      begun.reject(error);
    }).finally(async () => {
      await onEnded?.(ended);
      this.#wake();
    });
  }

  /** Opens what is there of it. It is renamed once, and nobody else has the lock meanwhile. */
  async open(): Promise<Deno.FsFile> {
    return await Deno.open(this.finalPath).catch(() => Deno.open(this.path))
      .catch(() => Deno.open(this.finalPath));
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }

  /** Ends it, if it goes on. */
  async stop(): Promise<void> {
    this.#stop.abort(new Error("The image is not needed any more"));
    await this.#done;
  }

  readonly wait = async (beyond: number, generation: number): Promise<ArrivedSoFar> => {
    while (
      this.#progress.size <= beyond && !this.#progress.isComplete &&
      this.#progress.generation === generation && this.#failure === undefined
    ) await new Promise<void>((resolve) => this.#waiters.push(resolve));
    if (this.#failure !== undefined) throw this.#failure.error;
    return this.#progress;
  };
}
