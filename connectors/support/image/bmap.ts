/**
 * Block maps, as bmaptool writes them: which blocks of an image have something in them, and what
 * checksum each range of those has. Blocks that are not mapped need not be written.
 */
import { createHash, getHashes } from "node:crypto";
import { ProvisioningError } from "../errors.ts";

/** The format's versions that are known; 1.x has no digest of its own but SHA-1, if any. */
const KNOWN_VERSIONS = [1, 2];

/** Consecutive blocks that have something in them. */
export interface MappedRange {
  /** From the image's start, in bytes. */
  readonly at: number;
  /** In bytes. */
  readonly length: number;
  /** Hexadecimal; undefined where the map has none, as those of version 1.2 and before. */
  readonly checksum: string | undefined;
}

/** The block map of an image. */
export interface Bmap {
  /** Of the whole unpacked image, in bytes. */
  readonly imageSize: number;
  /** Of what is mapped, in bytes. */
  readonly mappedSize: number;
  /** Name of the digest of the ranges' checksums, as node:crypto knows it. */
  readonly digest: string;
  /** In ascending order, none of them empty. */
  readonly ranges: readonly MappedRange[];
}

/** Does a text claim to be a block map? A server's page for what it does not have does not. */
export function looksLikeBmap(text: string): boolean {
  return /<bmap\s/.test(text);
}

/**
 * Reads a block map.
 *
 * @param name for messages.
 * @throws ProvisioningError when it is damaged, contradicts itself, or is of an unknown version.
 */
export function parseBmap(text: string, name: string): Bmap {
  const fail = (why: string) =>
    new ProvisioningError(`The block map ${name} cannot be used: ${why}`);
  // The comments that bmaptool writes have elements' names in them.
  const plain = withoutComments(text);
  const version = /<bmap\s+version\s*=\s*["'](\d+)(?:\.\d+)*["']\s*>/.exec(plain)?.[1];
  if (version === undefined || !/<\/bmap>\s*$/.test(plain)) throw fail("it is not a whole one");
  if (!KNOWN_VERSIONS.includes(Number(version))) throw fail(`its version is ${version}`);
  const element = (tag: string) => new RegExp(`<${tag}>([^<]*)</${tag}>`).exec(plain)?.[1]?.trim();
  const amount = (tag: string) => {
    const value = element(tag);
    if (value === undefined || !/^\d{1,15}$/.test(value)) {
      throw fail(`its ${tag} is ${value === undefined ? "missing" : `'${value}'`}`);
    }
    return Number(value);
  };
  const digest = (element("ChecksumType") ?? "sha1").toLowerCase();
  if (!getHashes().includes(digest)) throw fail(`its ChecksumType '${digest}' is not supported`);
  const own = element("BmapFileChecksum") ?? element("BmapFileSHA1");
  if (own !== undefined) {
    const found = checksumOfFile(text, { own, digest });
    if (found !== own) throw fail(`it is damaged: its own checksum is ${found}, expected ${own}`);
  }
  const imageSize = amount("ImageSize");
  const blockSize = amount("BlockSize");
  const blocks = amount("BlocksCount");
  if (blockSize === 0 || blocks !== Math.ceil(imageSize / blockSize)) {
    throw fail(`${blocks} blocks of ${blockSize} bytes are no image of ${imageSize} bytes`);
  }
  const ranges: MappedRange[] = [];
  let next = 0;
  let mapped = 0;
  for (const [whole, attributes = "", content = ""] of plain.matchAll(RANGE)) {
    const [, first, last = first] = /^(\d{1,15})(?:\s*-\s*(\d{1,15}))?$/.exec(content.trim()) ?? [];
    const [from, to] = [Number(first), Number(last)];
    if (!(from >= next && to >= from && to < blocks)) {
      throw fail(`its range '${whole}' is out of place`);
    }
    next = to + 1;
    mapped += next - from;
    const at = from * blockSize;
    ranges.push({
      at,
      // The image need not end with a whole block.
      length: Math.min(next * blockSize, imageSize) - at,
      checksum: /\b(?:chksum|sha1)\s*=\s*["']([0-9a-fA-F]+)["']/.exec(attributes)?.[1]
        ?.toLowerCase(),
    });
  }
  const expected = amount("MappedBlocksCount");
  if (mapped !== expected) throw fail(`its ranges have ${mapped} blocks, expected ${expected}`);
  return {
    imageSize,
    mappedSize: ranges.reduce((sum, { length }) => sum + length, 0),
    digest,
    ranges,
  };
}

const RANGE = /<Range\b([^<>]*)>([^<]*)<\/Range>/g;

/** In one pass, whatever is in it: the text is a stranger's. */
function withoutComments(text: string): string {
  let plain = "";
  for (let at = 0;;) {
    const begin = text.indexOf("<!--", at);
    const end = begin < 0 ? -1 : text.indexOf("-->", begin);
    plain += text.slice(at, begin < 0 ? undefined : begin);
    if (end < 0) return plain;
    at = end + "-->".length;
  }
}

/** It is computed with zeros in place of itself. */
function checksumOfFile(
  text: string,
  { own, digest }: { readonly own: string; readonly digest: string },
): string {
  return createHash(digest).update(text.replace(own, "0".repeat(own.length))).digest("hex");
}
