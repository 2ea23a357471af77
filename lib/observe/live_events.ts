/** Live logs: server-sent events, in bounded memory for however slow a reader. */
import type { Clock } from "../clock.ts";
import {
  createLogPieces,
  createOutputText,
  type LogPieces,
  piecesOf,
  type ShownPiece,
} from "./output_text.ts";
import type { Phase } from "../phases.ts";
import { type StatusBoard, type StatusEvent, TAIL_BYTES } from "./status.ts";

/** Readers that watch one agent; each costs a connection and at most 256 KiB. */
const MAX_WATCHERS = 20;

/** Output is sent at most this often: a program that writes a byte at a time makes no flood. */
const BATCH_MS = 100;

/** After a message as long as this the next one waits longer: nobody reads so much, and a browser has to draw it. */
const LARGE_MESSAGE_CHARS = 32 * 1024;
const AFTER_LARGE_MS = 500;

/** What a page is sent at once of a log that comes faster than it can be read; the rest is left out. */
const FLOOD_BYTES = 64 * 1024;

/** A connection without traffic is cut by proxies, and a reader that is gone is not noticed. */
const KEEP_ALIVE_MS = 15_000;

/** How soon a browser comes back after the agent was restarted. */
const RECONNECT_MS = 3_000;

/** The streams of all who watch. */
export interface LiveEvents {
  /** A new stream of events, as its feed makes them; undefined when there are too many already. */
  open(): ReadableStream<Uint8Array> | undefined;
  close(): void;
}

/** What one reader is told: it hears everything, and now and then is asked what to send. */
interface Feed {
  hear(event: StatusEvent): void;
  /** Messages; `""` when there is nothing new. */
  take(): string;
}

/** How the feed of a new reader is made. */
export type FeedMaker = (board: StatusBoard) => Feed;

/** Makes the streams of one agent. */
export function createLiveEvents(
  { board, clock, feed = textFeed }: { board: StatusBoard; clock: Clock; feed?: FeedMaker },
): LiveEvents {
  const watchers = new Set<AbortController>();
  return {
    open() {
      if (watchers.size >= MAX_WATCHERS) return undefined;
      const ended = new AbortController();
      watchers.add(ended);
      ended.signal.addEventListener("abort", () => watchers.delete(ended));
      return openStream({ board, clock, ended, feed: feed(board) });
    },
    close() {
      for (const ended of [...watchers]) ended.abort();
    },
  };
}

interface Watcher {
  board: StatusBoard;
  clock: Clock;
  ended: AbortController;
  feed: Feed;
}

function openStream({ board, clock, ended, feed }: Watcher): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  const { signal } = ended;
  let batching = false;
  /** Not before this moment, after a long message. */
  let notBefore = -Infinity;
  let subscription: Disposable | undefined;

  const take = (): string => {
    const messages = feed.take();
    if (messages.length > LARGE_MESSAGE_CHARS) notBefore = clock.monotonic() + AFTER_LARGE_MS;
    return messages;
  };

  return new ReadableStream<Uint8Array>({
    start(controller) {
      const flush = () => {
        // A reader that does not read gets what there is when it reads again: pull() is called.
        if (signal.aborted || (controller.desiredSize ?? 0) <= 0) return;
        const messages = take();
        if (messages !== "") controller.enqueue(encoder.encode(messages));
      };
      subscription = board.subscribe((event) => {
        feed.hear(event);
        if (batching) return;
        batching = true;
        clock.sleep(Math.max(BATCH_MS, notBefore - clock.monotonic()), signal).then(() => {
          batching = false;
          flush();
        }, () => {});
      });
      signal.addEventListener("abort", () => {
        subscription?.[Symbol.dispose]();
        try {
          controller.close();
        } catch {
          // The reader was quicker.
        }
      });
      controller.enqueue(encoder.encode(`retry: ${RECONNECT_MS}\n\n${take()}`));
      keepAlive(() => {
        if ((controller.desiredSize ?? 0) > 0) controller.enqueue(encoder.encode(": here\n\n"));
      }, { clock, signal });
    },
    pull(controller) {
      if (batching) return;
      const messages = take();
      if (messages !== "") controller.enqueue(encoder.encode(messages));
    },
    cancel: () => ended.abort(),
  });
}

function message(event: string, data: unknown): string {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** For commands: `tail` (JSON text, replaces all), `output` (JSON text), `changed`. */
export function textFeed(board: StatusBoard): Feed {
  let text = createOutputText();
  /** Not sent yet. */
  let output = "";
  let changed = false;
  /** Too much was not sent: the tail as a whole takes its place. */
  let resync = true;
  return {
    hear(event) {
      if (event.kind === "changed") {
        changed = true;
      } else if (event.kind === "cleared") {
        resync = true;
        output = "";
      } else if (event.kind === "output" && !resync) {
        output += text.push(event.bytes);
        resync = output.length > TAIL_BYTES;
        if (resync) output = "";
      }
    },
    take() {
      let messages = "";
      if (resync) {
        text = createOutputText();
        messages += message("tail", text.push(board.tail()));
      } else if (output !== "") {
        messages += message("output", output);
      }
      if (changed) messages += message("changed", {});
      resync = changed = false;
      output = "";
      return messages;
    },
  };
}

/** What a message of a page's log is. */
export interface LogMessage {
  /** `reset`: these are all; `gap`: some before them were left out; `more`: they follow. */
  kind: "reset" | "gap" | "more";
  pieces: ShownPiece[];
}

/** For pages: `log` and `serial` (each a {@link LogMessage}), `changed`. */
export function pageFeed(board: StatusBoard): Feed {
  const log = new LiveLog(() => piecesOf(board.tail(), board.marks()), () => board.tail());
  const serial = new LiveLog(() => piecesOf(board.serialTail()), () => board.serialTail());
  let changed = false;
  return {
    hear(event) {
      if (event.kind === "changed") changed = true;
      else if (event.kind === "output") log.push(event.bytes);
      else if (event.kind === "serial") serial.push(event.bytes);
      else if (event.kind === "phase") log.mark(event);
      else {
        log.reset();
        serial.reset();
      }
    },
    take() {
      const messages = log.take("log") + serial.take("serial") +
        (changed ? message("changed", {}) : "");
      changed = false;
      return messages;
    },
  };
}

/** One of the logs of a page. */
class LiveLog {
  readonly #all: () => { pieces: ShownPiece[]; stream: LogPieces };
  readonly #tail: () => Uint8Array;
  #stream: LogPieces = createLogPieces();
  #pieces: ShownPiece[] = [];
  #bytes = 0;
  #kind: LogMessage["kind"] = "reset";

  constructor(all: () => { pieces: ShownPiece[]; stream: LogPieces }, tail: () => Uint8Array) {
    this.#all = all;
    this.#tail = tail;
  }

  push(bytes: Uint8Array): void {
    if (this.#kind !== "more") return;
    this.#bytes += bytes.length;
    if (this.#bytes <= FLOOD_BYTES) return this.#add(this.#stream.push(bytes));
    this.#kind = "gap";
    this.#pieces = [];
  }

  mark({ phase }: { phase: Phase }): void {
    // Of those that are left out in a flood the last one is shown where the log goes on.
    if (this.#kind === "gap") this.#pieces = [{ phase }];
    else if (this.#kind === "more") this.#add([{ phase }]);
  }

  reset(): void {
    this.#kind = "reset";
    this.#pieces = [];
  }

  take(event: string): string {
    const kind = this.#kind;
    if (kind === "reset") {
      const { pieces, stream } = this.#all();
      this.#pieces = pieces;
      this.#stream = stream;
    } else if (kind === "gap") {
      const end = fromLineStart(this.#tail().slice(-FLOOD_BYTES));
      this.#stream = createLogPieces();
      this.#add(this.#stream.push(end));
    } else if (this.#pieces.length === 0) return "";
    const pieces = this.#pieces;
    this.#pieces = [];
    this.#bytes = 0;
    this.#kind = "more";
    return message(event, { kind, pieces } satisfies LogMessage);
  }

  /** Output comes in many small parts: those with one look become one piece. */
  #add(pieces: readonly ShownPiece[]): void {
    for (const piece of pieces) {
      const last = this.#pieces.at(-1);
      if (typeof piece === "string" && typeof last === "string") {
        this.#pieces[this.#pieces.length - 1] = last + piece;
      } else this.#pieces.push(piece);
    }
  }
}

const NEW_LINE = 0x0a;

function fromLineStart(bytes: Uint8Array): Uint8Array {
  return bytes.subarray(bytes.indexOf(NEW_LINE) + 1);
}

async function keepAlive(
  send: () => void,
  { clock, signal }: { clock: Clock; signal: AbortSignal },
) {
  while (true) {
    try {
      await clock.sleep(KEEP_ALIVE_MS, signal);
    } catch {
      return;
    }
    send();
  }
}
