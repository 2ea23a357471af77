/**
 * One exchange with the server: how long it may take, the answer's body as it comes, and words for
 * an answer that never came whole. Whatever waits for the server waits here, so that everything that
 * waits ends.
 */
import type { Clock } from "../clock.ts";
import { type Either, either, unlessAborted } from "../wait.ts";
import { requestMessageOf } from "../message.ts";
import type { Failure } from "./api.ts";
import { type CallFailure, foreignLine } from "./classify.ts";

/** The reason with which a `TimeLimit` aborts. */
class TimeUp extends Error {
  override readonly name = "TimeUp";

  /** @param idle whether nothing moved for that long, rather than the whole taking longer. */
  constructor(readonly limitMs: number, readonly idle: boolean) {
    const seconds = Math.round(limitMs / 1000);
    super(idle ? `nothing moved for ${seconds} s` : `no whole answer within ${seconds} s`);
  }
}

/** What a `TimeLimit` needs to know. */
export interface TimeLimitOptions {
  clock: Clock;
  limitMs: number;
  /** Count the time since the last `touch()` instead of the whole. */
  idle: boolean;
  /** The whole takes no longer than this, however much moves. */
  totalMs?: number | undefined;
  /** Whatever else ends the exchange: the caller, the client being closed. */
  signals: readonly (AbortSignal | undefined)[];
}

/** The time limit of one exchange, as a signal. Must be disposed of when the exchange is over. */
export class TimeLimit {
  readonly #clock: Clock;
  readonly #idle: boolean;
  readonly #ended: Either;
  #isOver = false;
  #limitMs: number;
  #touched: number;
  #paused = false;
  #end: { at: number; ms: number } | undefined;
  #wake = either();

  constructor({ clock, limitMs, idle, totalMs, signals }: TimeLimitOptions) {
    this.#clock = clock;
    this.#idle = idle;
    this.#limitMs = limitMs;
    this.#touched = clock.monotonic();
    const wholeMs = idle ? totalMs : limitMs;
    if (wholeMs !== undefined) this.#end = { at: this.#touched + wholeMs, ms: wholeMs };
    this.#ended = either(...signals);
    this.#run();
  }

  /** Aborts with a `TimeUp` or with the reason of one of the signals. */
  get signal(): AbortSignal {
    return this.#ended.signal;
  }

  /** A byte moved. */
  touch(): void {
    this.#touched = this.#clock.monotonic();
  }

  /** Nobody waits for the server just now: its idle time does not count. */
  pause(): void {
    this.#paused = true;
  }

  /** We wait for the server again. */
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.touch();
  }

  /** From now on all that is still to come takes at most so long. */
  endWithin(ms: number): void {
    const at = this.#clock.monotonic() + ms;
    if (this.#end !== undefined && this.#end.at <= at) return;
    this.#end = { at, ms };
    this.#wake.abort();
  }

  async #run(): Promise<void> {
    while (!this.#isOver && !this.signal.aborted) {
      const now = this.#clock.monotonic();
      const idleMs = this.#idle ? this.#touched + this.#limitMs - now : Infinity;
      const wholeMs = (this.#end?.at ?? Infinity) - now;
      if (wholeMs <= 0) {
        this.#ended.abort(new TimeUp(this.#end?.ms ?? 0, false));
      } else if (idleMs <= 0 && !this.#paused) {
        this.#ended.abort(new TimeUp(this.#limitMs, true));
      } else {
        this.#wake = either();
        const waitMs = Math.min(idleMs > 0 ? idleMs : this.#limitMs, wholeMs);
        await this.#clock.sleep(waitMs, this.#wake.signal).catch(() => {});
      }
    }
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
    this.#wake.abort();
    this.#ended[Symbol.dispose]();
  }
}

/** Why no whole answer came. */
export interface NoAnswer {
  /** Method and URL. */
  what: string;
  error: unknown;
  /** That of the exchange; its reason tells a time-out from the caller's decision. */
  signal: AbortSignal;
}

/** Words an exchange that brought no answer. */
export function noAnswer({ what, error, signal }: NoAnswer): CallFailure {
  if (signal.aborted && !(signal.reason instanceof TimeUp)) {
    return { ok: false, kind: "aborted", message: `${what}: given up on request` };
  }
  const reason = signal.aborted ? signal.reason.message : describeNoAnswer(error, "server_address");
  return { ok: false, kind: "unreachable", message: `${what}: ${reason}` };
}

/**
 * Says why a server did not answer, and what can be done about it.
 *
 * @param setting what names the server: a key or an option.
 */
export function describeNoAnswer(error: unknown, setting: string): string {
  const text = foreignLine(requestMessageOf(error));
  if (/certificate (expired|not valid yet)/i.test(text)) {
    return `the server's certificate is not valid now (${text}): have it renewed, or set this ` +
      `host's clock right`;
  }
  if (/certificate|UnknownIssuer/i.test(text)) {
    return `the server's certificate is not accepted (${text}): if its authority is your own, ` +
      `name the authority's certificate in SSL_CERT_FILE or DENO_CERT`;
  }
  if (/invalid HTTP version|corrupt message/i.test(text)) {
    return `what answers there does not speak HTTP (${text}): check ${setting}`;
  }
  return text === "" ? "no answer" : text;
}

/** An answer whose body is still to come. Has to be read to its end or released. */
export class Received {
  /** Method and URL. */
  readonly what: string;
  readonly status: number;
  readonly headers: Headers;
  readonly #limit: TimeLimit;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  /** What `begin()` has read ahead. */
  #first: Uint8Array | undefined;
  #bytes = 0;

  constructor(options: { what: string; response: Response; limit: TimeLimit }) {
    this.what = options.what;
    this.status = options.response.status;
    this.headers = options.response.headers;
    this.#limit = options.limit;
    this.#reader = options.response.body?.getReader();
  }

  /** Waits for the first bytes. @returns them as text, `""` when there are none, or why none came. */
  async begin(): Promise<string | CallFailure> {
    const first = await this.read();
    if (first !== undefined && !(first instanceof Uint8Array)) return first;
    this.#first = first;
    return new TextDecoder().decode(first);
  }

  /** Words an answer that is a 2xx and cannot have come from the server's API. */
  foreign(why: string): CallFailure {
    const message = `${this.what}: the answer cannot be used: ${why}`;
    return { ok: false, kind: "foreign", status: this.status, message };
  }

  /** All that is still to come takes at most so long, however much moves. */
  endWithin(ms: number): void {
    this.#limit.endWithin(ms);
  }

  /** The next piece, `undefined` at the end, or why there is none. */
  async read(): Promise<Uint8Array | undefined | CallFailure> {
    if (this.#first !== undefined) {
      const first = this.#first;
      this.#first = undefined;
      return first;
    }
    if (this.#reader === undefined) return undefined;
    this.#limit.resume();
    try {
      const { value } = await unlessAborted(this.#reader.read(), this.#limit.signal);
      this.#bytes += value?.length ?? 0;
      return value;
    } catch (error) {
      const failure = noAnswer({ what: this.what, error, signal: this.#limit.signal });
      if (failure.kind === "unreachable") {
        failure.message += ` (the answer was cut off after ${this.#bytes} bytes)`;
      }
      return failure;
    } finally {
      // Until the reader reads on, there is no waiting for the server.
      this.#limit.pause();
    }
  }

  /**
   * The whole body.
   *
   * @returns `bytes`: what came of it; `failure`: why that is not all.
   */
  async readAll(limitBytes: number): Promise<{ bytes: Uint8Array; failure?: Failure }> {
    const chunks: Uint8Array[] = [];
    let length = 0;
    let failure: CallFailure | undefined;
    while (failure === undefined) {
      const chunk = await this.read();
      if (chunk === undefined) break;
      if (!(chunk instanceof Uint8Array)) {
        failure = chunk;
      } else if (length + chunk.length > limitBytes) {
        chunks.push(chunk.subarray(0, limitBytes - length));
        length = limitBytes;
        failure = this.foreign(`it is larger than ${limitBytes} bytes`);
      } else {
        chunks.push(chunk);
        length += chunk.length;
      }
    }
    const bytes = new Uint8Array(length);
    let at = 0;
    for (const chunk of chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
    }
    this.release();
    return { bytes, ...(failure ? { failure } : {}) };
  }

  /** Ends the exchange, whatever is still to come. */
  release(): void {
    this.#limit[Symbol.dispose]();
    // Cancelling a stream that has failed repeats its error.
    this.#reader?.cancel().catch(() => {});
  }

  /** The body as a stream that ends the exchange by itself. Its errors have a line for a log. */
  stream(): ReadableStream<Uint8Array> {
    return new ReadableStream({
      pull: async (controller) => {
        const chunk = await this.read();
        if (chunk instanceof Uint8Array) return controller.enqueue(chunk);
        this.release();
        if (chunk === undefined) controller.close();
        else controller.error(new Error(chunk.message));
      },
      cancel: () => this.release(),
    }, { highWaterMark: 0 });
  }
}
