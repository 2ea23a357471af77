import { unlessAborted } from "../../../lib/wait.ts";
import { writeAll } from "../../../lib/bytes.ts";
import { lookup } from "node:dns/promises";
import { isIP, isIPv4 } from "node:net";
import type { ConnectorContext } from "../../context.ts";
import { fullMessageOf, ProvisioningError } from "../errors.ts";
import { timeLimit } from "../wait/time_limit.ts";

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

/**
 * Serves `body` once, to one of `clients` (addresses or host names; the first one is the device)
 * and to nobody else.
 */
export async function serveOnce(
  ctx: ConnectorContext,
  { body, clients }: {
    readonly body: ReadableStream<Uint8Array>;
    readonly clients: readonly string[];
  },
): Promise<OneShotServer> {
  const peers = (await Promise.all(clients.map(addressesOf))).flat();
  const address = await ownAddress(peers[0] ?? "");
  const { promise: accepted, resolve: accept, reject: giveUp } = Promise.withResolvers<Deno.Conn>();
  accepted.catch(() => {});
  // Not node:net, which fails to write to a client that closes its own side meanwhile, such as an nc
  // whose input is /dev/null.
  const listener = Deno.listen({ hostname: address, port: 0 });
  let taken: Deno.TcpConn | undefined;
  const listening = (async () => {
    for await (const client of listener) {
      const peer = plain(client.remoteAddr.hostname);
      if (taken === undefined && peers.includes(peer)) {
        taken = client;
        accept(client);
        continue;
      }
      if (taken === undefined) ctx.log.warning(`${peer} asked for a file that is not for it`);
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
      using limit = timeLimit(ctx, {
        ms: ACCEPT_TIMEOUT_MS,
        message: `The file was not requested within ${ACCEPT_TIMEOUT_MS / 1000} s`,
      });
      const client = await unlessAborted(accepted, limit.signal).catch((error) => {
        ctx.signal.throwIfAborted();
        throw new ProvisioningError(fullMessageOf(error));
      });
      return await send(ctx, body, client);
    },
    [Symbol.asyncDispose]: close,
  };
}

async function send(
  ctx: ConnectorContext,
  body: ReadableStream<Uint8Array>,
  client: Deno.Conn,
): Promise<number> {
  const reader = body.getReader();
  let sent = 0;
  try {
    while (true) {
      // How long it may take to come is its own affair.
      const { done, value } = await reader.read();
      if (done) break;
      using limit = timeLimit(ctx, {
        ms: STALL_TIMEOUT_MS,
        message: `the client read nothing for ${STALL_TIMEOUT_MS / 1000} s`,
      });
      try {
        await writeAll({
          write: (bytes) => unlessAborted(client.write(bytes), limit.signal),
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

async function addressesOf(host: string): Promise<string[]> {
  if (isIP(host)) return [host];
  try {
    return (await lookup(host, { all: true })).map(({ address }) => address);
  } catch (error) {
    throw new ProvisioningError(`Cannot find the address of '${host}': ${fullMessageOf(error)}`);
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

/** IPv4 addresses as a socket for both kinds shows them. */
function plain(address: string): string {
  return address.startsWith("::ffff:") ? address.slice("::ffff:".length) : address;
}

/** One address of this host. */
interface LocalAddress {
  readonly name: string;
  readonly address: string;
  readonly netmask: string;
}

/**
 * The address of this host on the way to `target`: on the most specific network that has the
 * target in it, else on the interface of the default route.
 *
 * @param target an IPv4 address.
 * @param own the addresses to choose from, and `/proc/net/route` as text.
 * @returns undefined when there is no way.
 */
export function localAddressFor(
  target: string,
  own: { readonly addresses: readonly LocalAddress[]; readonly routes: string },
): string | undefined {
  if (!isIPv4(target)) return undefined;
  const number = toNumber(target);
  const usable = own.addresses.filter(({ address }) => isIP(address) === 4);
  const near = usable.filter(({ address, netmask }) =>
    ((toNumber(address) ^ number) & toNumber(netmask)) === 0
  ).sort((a, b) => toNumber(b.netmask) - toNumber(a.netmask));
  if (near[0] !== undefined) return near[0].address;
  const name = routeTo(number, own.routes);
  return usable.find((address) => address.name === name)?.address;
}

/** The interface of the most specific route. Numbers in the table are little-endian hexadecimal. */
function routeTo(target: number, table: string): string | undefined {
  let best: { name: string; mask: number; metric: number } | undefined;
  for (const line of table.split("\n").slice(1)) {
    const [name, network, , , , , metricText, maskText] = line.trim().split(/\s+/);
    if (name === undefined || network === undefined || maskText === undefined) continue;
    const mask = fromTable(maskText);
    const metric = Number(metricText);
    if (((target ^ fromTable(network)) & mask) !== 0) continue;
    const better = best === undefined || mask > best.mask ||
      (mask === best.mask && metric < best.metric);
    if (better) best = { name, mask, metric };
  }
  return best?.name;
}

function toNumber(address: string): number {
  return address.split(".").reduce((number, part) => number * 256 + Number(part), 0);
}

function fromTable(hex: string): number {
  return [6, 4, 2, 0].reduce((number, at) => number * 256 + parseInt(hex.slice(at, at + 2), 16), 0);
}
