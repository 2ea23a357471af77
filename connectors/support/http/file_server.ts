import { createServer, isIP, type Server, type Socket } from "node:net";
import { lookup } from "node:dns/promises";
import type { ConnectorContext } from "../../context.ts";
import { messageOf, ProvisioningError } from "../errors.ts";
import { localAddressFor } from "./local_address.ts";
import { progressOf } from "../log.ts";
import { timeLimit, unlessAborted } from "../wait/time_limit.ts";

const ACCEPT_TIMEOUT_MS = 120_000;
const STALL_TIMEOUT_MS = 60_000;
const CHUNK_BYTES = 1024 * 1024;

/** A server for one file and one client: raw bytes over TCP, as `nc` reads them. */
export interface OneShotServer extends AsyncDisposable {
  readonly address: string;
  readonly port: number;
  /**
   * Waits until the client has the whole file.
   *
   * @throws ProvisioningError when nobody comes, the client stops reading, or not all was sent.
   */
  sent(): Promise<number>;
}

/**
 * Serves `file` once, to one of `clients` (addresses or host names; the first one is the device)
 * and to nobody else.
 */
export async function serveOnce(
  ctx: ConnectorContext,
  { file, clients }: { readonly file: string; readonly clients: readonly string[] },
): Promise<OneShotServer> {
  const peers = (await Promise.all(clients.map(addressesOf))).flat();
  const address = await ownAddress(peers[0] ?? "");
  const { promise: accepted, resolve: accept, reject: giveUp } = Promise.withResolvers<Socket>();
  accepted.catch(() => {});
  let taken = false;
  // A client that has nothing to say, such as an nc whose input is /dev/null, closes its side at once.
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    const peer = plain(socket.remoteAddress ?? "");
    if (taken || !peers.includes(peer)) {
      if (!taken) ctx.log.warning(`${peer} asked for a file that is not for it`);
      socket.destroy();
      return;
    }
    taken = true;
    accept(socket);
  });
  const port = await listen(server, address);
  const close = async () => {
    if (taken) (await accepted).destroy();
    // What still waits for a client would wait for the whole of its time.
    else giveUp(new Error("The server of the file was closed before anybody came for it"));
    await new Promise<void>((resolve) => server.close(() => resolve()));
  };
  return {
    address,
    port,
    async sent() {
      using limit = timeLimit(ctx, {
        ms: ACCEPT_TIMEOUT_MS,
        message: `Nobody came for the file within ${ACCEPT_TIMEOUT_MS / 1000} s`,
      });
      const socket = await unlessAborted(accepted, limit.signal).catch((error) => {
        ctx.signal.throwIfAborted();
        throw new ProvisioningError(messageOf(error));
      });
      return await send(ctx, file, socket);
    },
    [Symbol.asyncDispose]: close,
  };
}

async function send(ctx: ConnectorContext, path: string, socket: Socket): Promise<number> {
  using file = await Deno.open(path);
  const { size } = await file.stat();
  const progress = progressOf(ctx, { what: "Sending the image", total: size });
  const buffer = new Uint8Array(CHUNK_BYTES);
  const lost = new Promise<never>((_, reject) => {
    socket.once("error", reject);
    socket.once("close", () => reject(new Error("the connection was closed")));
  });
  lost.catch(() => {});
  let sent = 0;
  try {
    for (let read = await file.read(buffer); read !== null; read = await file.read(buffer)) {
      using limit = timeLimit(ctx, {
        ms: STALL_TIMEOUT_MS,
        message: `the client read nothing for ${STALL_TIMEOUT_MS / 1000} s`,
      });
      // The socket keeps what it is given until it is sent.
      const chunk = buffer.slice(0, read);
      const written = new Promise<void>((resolve, reject) =>
        socket.write(chunk, (error) => error ? reject(error) : resolve())
      );
      await unlessAborted(Promise.race([written, lost]), limit.signal);
      sent += read;
      progress.at(sent);
    }
    socket.end();
  } catch (error) {
    ctx.signal.throwIfAborted();
    throw new ProvisioningError(`Only ${sent} of ${size} bytes were sent: ${messageOf(error)}`, {
      cause: error,
    });
  } finally {
    progress.end();
  }
  if (sent !== size) throw new ProvisioningError(`${sent} bytes were sent, expected ${size}`);
  return sent;
}

async function addressesOf(host: string): Promise<string[]> {
  if (isIP(host)) return [host];
  try {
    return (await lookup(host, { all: true })).map(({ address }) => address);
  } catch (error) {
    throw new ProvisioningError(`Cannot find the address of '${host}': ${messageOf(error)}`);
  }
}

/** Only the network that the device is on gets to see the port. */
async function ownAddress(peer: string): Promise<string> {
  if (isIP(peer) === 6) return "::";
  const address = localAddressFor(peer, {
    addresses: Deno.networkInterfaces(),
    routes: await Deno.readTextFile("/proc/net/route").catch(() => ""),
  });
  if (address !== undefined) return address;
  throw new ProvisioningError(`This host has no way to '${peer}'`);
}

function listen(server: Server, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, host, () => {
      const address = server.address();
      if (typeof address === "object" && address !== null) resolve(address.port);
      else reject(new Error("a TCP server has a port"));
    });
  });
}

/** IPv4 addresses as a socket for both kinds shows them. */
function plain(address: string): string {
  return address.startsWith("::ffff:") ? address.slice("::ffff:".length) : address;
}
