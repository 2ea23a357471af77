/** The page's live log: server-sent events, in bounded memory for however slow a browser. */
import type { Clock } from "../clock.ts";
import { createOutputText } from "./output_text.ts";
import { type StatusBoard, type StatusEvent, TAIL_BYTES } from "./status.ts";

/** Browsers that watch one agent; each costs a connection and at most 64 KiB. */
const MAX_WATCHERS = 20;

/** Output is sent at most this often: a program that writes a byte at a time makes no flood. */
const BATCH_MS = 100;

/** A connection without traffic is cut by proxies, and a browser that is gone is not noticed. */
const KEEP_ALIVE_MS = 15_000;

/** How soon a browser comes back after the agent was restarted. */
const RECONNECT_MS = 3_000;

/** The streams of all who watch. */
export interface LiveEvents {
  /** A new stream of events: `tail` (JSON text, replaces all), `output` (JSON text), `changed`. */
  open(): ReadableStream<Uint8Array> | undefined;
  close(): void;
}

/** Makes the streams of one agent. `open()` gives nothing when there are too many already. */
export function createLiveEvents(
  { board, clock }: { board: StatusBoard; clock: Clock },
): LiveEvents {
  const watchers = new Set<AbortController>();
  return {
    open() {
      if (watchers.size >= MAX_WATCHERS) return undefined;
      const ended = new AbortController();
      watchers.add(ended);
      ended.signal.addEventListener("abort", () => watchers.delete(ended));
      return openStream({ board, clock, ended });
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
}

function openStream({ board, clock, ended }: Watcher): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  const { signal } = ended;
  let text = createOutputText();
  /** Not sent yet. */
  let output = "";
  let changed = false;
  /** Too much was not sent: the tail as a whole takes its place. */
  let resync = true;
  let batching = false;
  let subscription: Disposable | undefined;

  const message = (event: string, data: unknown) =>
    `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;

  const take = (): string => {
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
  };

  const onEvent = (event: StatusEvent) => {
    if (event.kind === "changed") {
      changed = true;
    } else if (event.kind === "cleared") {
      resync = true;
      output = "";
    } else if (!resync) {
      output += text.push(event.bytes);
      resync = output.length > TAIL_BYTES;
      if (resync) output = "";
    }
  };

  return new ReadableStream<Uint8Array>({
    start(controller) {
      const flush = () => {
        // A browser that does not read gets what there is when it reads again: pull() is called.
        if (signal.aborted || (controller.desiredSize ?? 0) <= 0) return;
        const messages = take();
        if (messages !== "") controller.enqueue(encoder.encode(messages));
      };
      subscription = board.subscribe((event) => {
        onEvent(event);
        if (batching) return;
        batching = true;
        clock.sleep(BATCH_MS, signal).then(() => {
          batching = false;
          flush();
        }, () => {});
      });
      signal.addEventListener("abort", () => {
        subscription?.[Symbol.dispose]();
        try {
          controller.close();
        } catch {
          // The browser was quicker.
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
