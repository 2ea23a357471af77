/** What the benchmarks of images share: a stage of muxpi, and a link of a known speed. */
import * as z from "zod";
import { makeContext } from "../connectors/make_context.ts";
import { muxpi } from "../connectors/muxpi.ts";
import type { MuxpiContext } from "../connectors/muxpi/config.ts";
import type { PutBackStack } from "../connectors/support/put_back.ts";
import { systemClock } from "../lib/clock.ts";

/** A file system in memory, where there is one. */
export async function memory(): Promise<string> {
  const shm = "/dev/shm";
  return await Deno.stat(shm).then((info) => info.isDirectory, () => false) ? shm : "/tmp";
}

/** A control host, as ssh reaches it. */
export interface ControlHostAddress {
  readonly env: Readonly<Record<string, string>>;
  readonly user: string;
  readonly port: number;
}

/** What a stage of muxpi works with, in a folder. Its ssh connections end with `putBack.runAll()`. */
export function contextFor(
  cwd: string,
  { env, user, port }: ControlHostAddress,
): { readonly ctx: MuxpiContext; readonly putBack: PutBackStack } {
  const { ctx, putBack } = makeContext({
    connector: muxpi.name,
    stage: "provision",
    config: z.object(muxpi.configShape).parse({
      control_host: "127.0.0.1",
      control_host_ssh_port: port,
      control_user: user,
    }) as MuxpiContext["config"],
    configValues: {},
    jobFile: "",
    cwd,
    env,
    clock: systemClock,
    limits: systemClock,
    log: { debug() {}, info() {}, warning: console.error, error: console.error },
    signal: new AbortController().signal,
    forceStop: new AbortController().signal,
    print: () => Promise.resolve(),
  });
  // Parsed by muxpi's own shape, some lines above.
  return { ctx: ctx as MuxpiContext, putBack };
}

/** By how much a link may be behind because this process was. */
const LATE_MS = 50;

/** A way to a port of this host that takes so many bytes a second in each direction, all together. */
export function limitedLink(
  port: number,
  bytesPerSecond: number,
): AsyncDisposable & {
  readonly port: number;
  /** Bytes that have gone to the port so far. */
  readonly sent: number;
} {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const open = new Set<Deno.Conn>();
  const freeAt = { there: 0, back: 0 };
  let sent = 0;
  const carry = async (from: Deno.Conn, to: Deno.Conn, way: keyof typeof freeAt) => {
    const buffer = new Uint8Array(64 * 1024);
    try {
      for (let read = await from.read(buffer); read !== null; read = await from.read(buffer)) {
        if (way === "there") sent += read;
        const now = performance.now();
        // What a sleep took too long is made up for: a link does not wait for this process.
        freeAt[way] = Math.max(now - LATE_MS, freeAt[way]) + read / bytesPerSecond * 1000;
        if (freeAt[way] > now) await systemClock.sleep(freeAt[way] - now);
        for (let at = 0; at < read;) at += await to.write(buffer.subarray(at, read));
      }
      await to.closeWrite();
    } catch {
      // One side is gone: so is the other.
      for (const side of [from, to]) close(side);
    }
  };
  const close = (connection: Deno.Conn) => {
    open.delete(connection);
    try {
      connection.close();
    } catch {
      // It is closed.
    }
  };
  const accepting = (async () => {
    for await (const client of listener) {
      const server = await Deno.connect({ hostname: "127.0.0.1", port });
      for (const side of [client, server]) open.add(side);
      Promise.all([carry(client, server, "there"), carry(server, client, "back")])
        .then(() => [client, server].forEach(close));
    }
  })();
  return {
    port: listener.addr.port,
    get sent() {
      return sent;
    },
    async [Symbol.asyncDispose]() {
      listener.close();
      await accepting;
      for (const side of [...open]) close(side);
    },
  };
}

/** A server of the files of a folder, which knows what has not changed. */
export function imageServer(folder: string): AsyncDisposable & {
  readonly port: number;
  /** How often a whole file was asked for. */
  readonly downloads: number;
} {
  let downloads = 0;
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (request) => {
    const file = await Deno.open(`${folder}${new URL(request.url).pathname}`).catch(() =>
      undefined
    );
    if (file === undefined) return new Response("no", { status: 404 });
    const { size, mtime } = await file.stat();
    const etag = `"${mtime?.getTime()}"`;
    if (request.headers.get("if-none-match") === etag) {
      file.close();
      return new Response(null, { status: 304 });
    }
    downloads++;
    return new Response(file.readable, { headers: { etag, "content-length": String(size) } });
  });
  return {
    port: server.addr.port,
    get downloads() {
      return downloads;
    },
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}
