import { isIP, isIPv4 } from "node:net";

/** One address of this host. */
export interface LocalAddress {
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
