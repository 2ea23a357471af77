import { unlessAborted } from "../../../lib/wait.ts";
import { writeAll } from "../../../lib/bytes.ts";
import { lookup } from "node:dns/promises";
import { isIPv4, isIPv6 } from "node:net";
import type { ConnectorContext } from "../../context.ts";
import { fullMessageOf, ProvisioningError } from "../errors.ts";
import { openTcp } from "../wait/tcp.ts";
import { type StageLimit, timeLimit } from "../wait/time_limit.ts";

const CONNECT_TIMEOUT_MS = 10_000;
const ACCEPT_TIMEOUT_MS = 120_000;
const STALL_TIMEOUT_MS = 60_000;

/** A server for one stream and one client: raw bytes over TCP, as `nc` reads them. */
interface OneShotServer extends AsyncDisposable {
  readonly address: string;
  readonly port: number;
  /**
   * Waits until the client has all of it.
   *
   * @returns how many bytes that was.
   *
   * @throws ProvisioningError when nobody comes, or the client stops reading; what the stream throws.
   */
  sent(): Promise<number>;
}

/** What is served, and to whom. */
interface Serving {
  readonly body: ReadableStream<Uint8Array>;
  /** The device, with a port on which it answers: so it is seen how it reaches this host. */
  readonly device: { readonly host: string; readonly port: number };
  /** By way of it the device may fetch, or it may fetch for the device. */
  readonly controlHost?: string | undefined;
  /** Stands still while there is nothing of the body to send. */
  readonly limit?: StageLimit;
}

/** Serves `body` once, to the device or its control host, and to nobody else. */
export async function serveOnce(
  ctx: Pick<ConnectorContext, "limits" | "log" | "signal">,
  serving: Serving,
): Promise<OneShotServer> {
  const { body, device, controlHost } = serving;
  const { address, peer } = await wayTo(ctx, device);
  const hosts = controlHost === undefined ? [device.host] : [device.host, controlHost];
  const peers = [peer, ...(await Promise.all(hosts.map((one) => addressesOf(ctx, one)))).flat()];
  const { promise: accepted, resolve: accept, reject: giveUp } = Promise.withResolvers<Deno.Conn>();
  accepted.catch(() => {});
  // Not node:net, which fails to write to a client that closes its own side meanwhile, such as an nc
  // whose input is /dev/null.
  const listener = Deno.listen({ hostname: address, port: 0 });
  let taken: Deno.TcpConn | undefined;
  const listening = (async () => {
    for await (const client of listener) {
      const from = plain(client.remoteAddr.hostname);
      if (taken === undefined && peers.includes(from)) {
        taken = client;
        accept(client);
        continue;
      }
      if (taken === undefined) ctx.log.warning(`${from} asked for a file that is not for it`);
      client.close();
    }
  })();
  const close = async () => {
    // What still waits for a client would wait for the whole of its time.
    giveUp(new Error("The server of the file was closed before the file was requested"));
    listener.close();
    await listening;
    closeQuietly(taken);
    if (!body.locked) await body.cancel().catch(() => {});
  };
  return {
    address,
    port: listener.addr.port,
    async sent() {
      using coming = timeLimit(ctx, {
        ms: ACCEPT_TIMEOUT_MS,
        message: `The file was not requested within ${ACCEPT_TIMEOUT_MS / 1000} s`,
      });
      const client = await unlessAborted(accepted, coming.signal).catch((error) => {
        ctx.signal.throwIfAborted();
        throw new ProvisioningError(fullMessageOf(error));
      });
      return await send(ctx, serving, client);
    },
    [Symbol.asyncDispose]: close,
  };
}

async function send(
  ctx: Pick<ConnectorContext, "limits" | "signal">,
  { body, limit }: Pick<Serving, "body" | "limit">,
  client: Deno.Conn,
): Promise<number> {
  const reader = body.getReader();
  let sent = 0;
  try {
    while (true) {
      // How long it may take to come is its own affair.
      const reading = reader.read();
      const { done, value } = await (limit?.outside(reading) ?? reading);
      if (done) break;
      using stall = timeLimit(ctx, {
        ms: STALL_TIMEOUT_MS,
        message: `the client read nothing for ${STALL_TIMEOUT_MS / 1000} s`,
      });
      try {
        await writeAll({
          write: (bytes) => unlessAborted(client.write(bytes), stall.signal),
        }, value);
      } catch (error) {
        ctx.signal.throwIfAborted();
        throw new ProvisioningError(`Only ${sent} bytes were sent: ${fullMessageOf(error)}`, {
          cause: error,
        });
      }
      sent += value.length;
    }
    return sent;
  } finally {
    closeQuietly(client);
    await reader.cancel().catch(() => {});
  }
}

function closeQuietly(client: Deno.Conn | undefined): void {
  try {
    client?.close();
  } catch {
    // It is closed.
  }
}

/** As the kernel writes them. */
async function addressesOf(ctx: Pick<ConnectorContext, "log">, host: string): Promise<string[]> {
  if (isIPv4(host)) return [host];
  if (isIPv6(host)) return [new URL(`http://[${host}]`).hostname.slice(1, -1)];
  try {
    return (await lookup(host, { all: true })).map(({ address }) => address);
  } catch (error) {
    ctx.log.warning(
      `Cannot find the address of '${host}', which may not fetch the file: ${fullMessageOf(error)}`,
    );
    return [];
  }
}

/**
 * Both ends of a connection to the device: only the network that it is on gets to see the port, and
 * the kernel alone knows all of its routes.
 */
async function wayTo(
  ctx: Pick<ConnectorContext, "limits" | "signal">,
  { host, port }: Serving["device"],
): Promise<{ readonly address: string; readonly peer: string }> {
  try {
    const socket = await openTcp(ctx, { host, port, timeoutMs: CONNECT_TIMEOUT_MS });
    const { localAddress, remoteAddress } = socket;
    socket.destroy();
    if (localAddress === undefined || remoteAddress === undefined) {
      throw new Error("the connection has no addresses");
    }
    return { address: plain(localAddress), peer: plain(remoteAddress) };
  } catch (error) {
    ctx.signal.throwIfAborted();
    throw new ProvisioningError(
      `Cannot find out under which address '${host}' reaches this host: ${fullMessageOf(error)}`,
    );
  }
}

/** IPv4 addresses as a socket for both kinds shows them. */
function plain(address: string): string {
  return address.startsWith("::ffff:") ? address.slice("::ffff:".length) : address;
}
