/**
 * `portable`: a POSIX shell script and, behind it, a compressed archive of the runtime and the
 * program. The same input gives the same bytes: fixed times and owners, and gzip without a time.
 */
import { gzipSync } from "node:zlib";
import { packTar } from "modern-tar";
import { PERMISSIONS } from "../../lib/cli/self.ts";
import { sha256 } from "./digest.ts";
import { DENO_VERSION, type Target } from "./targets.ts";

/** The script is padded to this size, so that it can say where the archive begins. */
const HEADER_BYTES = 8_192;

/** Digits of the checksum of runtime and program that go into the cache folder's name. */
const ID_DIGITS = 12;

/** Nothing is looked up, asked or downloaded when the program starts. */
const RUN_FLAGS = [
  "--no-config",
  "--no-lock",
  "--no-prompt",
  "--no-remote",
  "--no-npm",
  "--cached-only",
  ...PERMISSIONS,
];

export interface PortableParts {
  /** The program's version: part of the cache folder's name. */
  version: string;
  target: Target;
  /** The runtime for the target. */
  deno: Uint8Array<ArrayBuffer>;
  /** The bundled program, stamped. */
  program: string;
}

/** The whole file. */
export async function portable(
  { version, target, deno, program }: PortableParts,
): Promise<Uint8Array<ArrayBuffer>> {
  const main = new TextEncoder().encode(program);
  const sums = { deno: await sha256(deno), main: await sha256(main) };
  const both = await sha256(new TextEncoder().encode(`${sums.deno} ${sums.main}`));
  const header = await launcher({
    VERSION: version,
    TARGET: target.name,
    DENO: DENO_VERSION,
    ID: `${version}-${target.arch}-${both.slice(0, ID_DIGITS)}`,
    ARCH: target.arch,
    SKIP: `${HEADER_BYTES + 1}`,
    DENO_SIZE: `${deno.length}`,
    MAIN_SIZE: `${main.length}`,
    DENO_SHA256: sums.deno,
    MAIN_SHA256: sums.main,
    FLAGS: RUN_FLAGS.join(" "),
  });
  const archive = gzipSync(await archiveOf(deno, main), { level: 9 });
  const file = new Uint8Array(HEADER_BYTES + archive.length);
  file.set(header);
  file.set(archive, HEADER_BYTES);
  return file;
}

function archiveOf(deno: Uint8Array, main: Uint8Array): Promise<Uint8Array> {
  const common = {
    type: "file",
    mtime: new Date(0),
    uid: 0,
    gid: 0,
    uname: "",
    gname: "",
  } as const;
  return packTar([
    { header: { ...common, name: "deno", mode: 0o755, size: deno.length }, body: deno },
    { header: { ...common, name: "main.js", mode: 0o644, size: main.length }, body: main },
  ]);
}

async function launcher(values: Record<string, string>): Promise<Uint8Array> {
  const template = await Deno.readTextFile(new URL("./header.sh", import.meta.url));
  const script = template.replaceAll(/@([A-Z0-9_]+)@/g, (_, name) => {
    const value = values[name];
    if (value === undefined) throw new Error(`Cannot fill in @${name}@ of header.sh`);
    return value;
  });
  const bytes = new TextEncoder().encode(script);
  if (bytes.length > HEADER_BYTES) {
    throw new Error(`header.sh has ${bytes.length} bytes, and HEADER_BYTES is ${HEADER_BYTES}`);
  }
  // The shell never comes here: it has become the program.
  const padded = new Uint8Array(HEADER_BYTES).fill("#".charCodeAt(0));
  padded.set(bytes);
  padded[HEADER_BYTES - 1] = "\n".charCodeAt(0);
  return padded;
}
