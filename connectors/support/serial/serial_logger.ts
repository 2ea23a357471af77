import { writeAll } from "../../../lib/bytes.ts";
import { basename, join } from "../../../lib/path.ts";
import type { ConnectorContext } from "../../context.ts";
import { fullMessageOf } from "../errors.ts";
import { systemReason } from "../files.ts";
import { openTcp } from "../wait/tcp.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const RECONNECT_PAUSE_MS = 30_000;
const KEEPALIVE_MS = 30_000;

/** A console that repeats one line for ever must not fill the host's disk. */
const LOG_MAX_BYTES = 100 * 1024 * 1024;

/** What the device has already said may still be on its way when the logger is stopped. */
const DRAIN_MS = 200;

/** Settings that only tests change. */
interface SerialLoggerOptions {
  /** @default 100 MiB */
  readonly maxBytes?: number;
}

/**
 * Appends everything that the device's serial server sends to `file` (in the job's folder) until
 * it is disposed of. Connects again 30 s after a connection was refused, lost or closed. Does
 * nothing unless `serial_host` and `serial_port` are configured.
 */
export async function startSerialLogger(
  ctx: ConnectorContext,
  file: string,
  options: SerialLoggerOptions = {},
): Promise<AsyncDisposable> {
  const { serial_host: host, serial_port: port } = ctx.config;
  const none = { [Symbol.asyncDispose]: () => Promise.resolve() };
  if (!host || port === undefined) return none;
  const stop = new AbortController();
  let log: SerialFile;
  try {
    log = await SerialFile.open(join(ctx.cwd, file), options.maxBytes ?? LOG_MAX_BYTES);
  } catch (error) {
    ctx.log.warning(`Serial log: ${fullMessageOf(error)}`);
    return none;
  }
  const running = follow(ctx, { host, port, stop: stop.signal, log })
    .catch((error) => {
      if (!stop.signal.aborted) ctx.log.warning(`Serial log: ${fullMessageOf(error)}`);
    });
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
      log.close();
    },
  };
}

/** The file, and how much of it may still be written. */
class SerialFile {
  #left: number;

  private constructor(readonly path: string, readonly file: Deno.FsFile, maxBytes: number) {
    this.#left = maxBytes;
  }

  static async open(path: string, maxBytes: number): Promise<SerialFile> {
    try {
      return new SerialFile(path, await Deno.open(path, { append: true, create: true }), maxBytes);
    } catch (error) {
      throw new NotWritable(path, error);
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#left <= 0) return;
    await this.#writeAll(bytes.subarray(0, this.#left));
    this.#left -= bytes.length;
    if (this.#left > 0) return;
    await this.#writeAll(new TextEncoder().encode("\n[the serial log is cut off here]\n"));
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    await writeAll(this.file, bytes).catch((error) => {
      throw new NotWritable(this.path, error);
    });
  }

  close(): void {
    this.file.close();
  }
}

/** No other connection would help: this is the end of the log, and of nothing else. */
class NotWritable extends Error {
  constructor(path: string, cause: unknown) {
    super(`Cannot write ${basename(path)}: ${systemReason(cause)}`, { cause });
  }
}

interface Following {
  readonly host: string;
  readonly port: number;
  readonly stop: AbortSignal;
  readonly log: SerialFile;
}

async function follow(ctx: ConnectorContext, { host, port, stop, log }: Following): Promise<void> {
  const signal = AbortSignal.any([stop, ctx.signal]);
  let complained = false;
  while (!signal.aborted) {
    try {
      const socket = await openTcp({ ...ctx, signal }, {
        host,
        port,
        timeoutMs: CONNECT_TIMEOUT_MS,
      });
      socket.setKeepAlive(true, KEEPALIVE_MS);
      // Never a reason for the process to go on living.
      socket.unref();
      const strip = ctx.config.serial_protocol === "telnet"
        ? telnetStripper()
        : (bytes: Uint8Array) => bytes;
      // What is under way when the logger is stopped is still written.
      const hangUp = () => {
        const timer = setTimeout(() => socket.destroy(), DRAIN_MS);
        socket.once("close", () => clearTimeout(timer));
        socket.end();
      };
      signal.addEventListener("abort", hangUp, { once: true });
      try {
        for await (const bytes of socket) await log.write(strip(bytes));
        if (!signal.aborted) ctx.log.info(`Serial log: ${host}:${port} closed the connection`);
      } finally {
        signal.removeEventListener("abort", hangUp);
        socket.destroy();
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof NotWritable) throw error;
      if (!complained) {
        ctx.log.warning(
          `Serial log: no connection to ${host}:${port}: ${
            fullMessageOf(error)
          }; trying again every ` +
            `${RECONNECT_PAUSE_MS / 1000} s`,
        );
      }
      complained = true;
    }
    await ctx.clock.sleep(RECONNECT_PAUSE_MS, signal).catch(() => {});
  }
}

/** Bytes of the telnet protocol (RFC 854). */
const IAC = 255;
const DONT = 254;
const WILL = 251;
const SB = 250;
const SE = 240;

type State = "data" | "command" | "option" | "subnegotiation" | "subnegotiation command";

/** Makes a function that takes the negotiation out of a telnet stream, whatever the chunking. */
export function telnetStripper(): (bytes: Uint8Array) => Uint8Array {
  let state: State = "data";
  return (bytes) => {
    const kept = new Uint8Array(bytes.length);
    let length = 0;
    for (const byte of bytes) {
      switch (state) {
        case "data":
          if (byte === IAC) state = "command";
          else kept[length++] = byte;
          break;
        case "command":
          if (byte === IAC) kept[length++] = byte;
          state = byte === SB ? "subnegotiation" : byte >= WILL && byte <= DONT ? "option" : "data";
          break;
        case "option":
          state = "data";
          break;
        case "subnegotiation":
          if (byte === IAC) state = "subnegotiation command";
          break;
        case "subnegotiation command":
          state = byte === SE ? "data" : "subnegotiation";
          break;
      }
    }
    return kept.subarray(0, length);
  };
}
