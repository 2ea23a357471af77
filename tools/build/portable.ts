/**
 * `portable`: a POSIX shell script and, behind it, a compressed archive of the runtime and the
 * program. The same input gives the same bytes: fixed times and owners, and gzip without a time.
 */
import { gzipSync } from "node:zlib";
import { packTar } from "modern-tar";
import { PERMISSIONS } from "../../lib/cli/command.ts";
import { MAIN_FILE, type Program } from "./bundle.ts";
import { sha256 } from "./digest.ts";
import { DENO_VERSION, type Target } from "./targets.ts";

/** The script is padded to a multiple of this, so that it can say where the archive begins. */
const HEADER_STEP_BYTES = 4096;

/** Digits of the checksums of runtime and program that go into the cache folder's name. */
const ID_DIGITS = 12;

/** Nothing is looked up, asked or downloaded when the program starts. */
const RUN_FLAGS = [
  // What lives for a moment: with more room it takes 50 MB once a job prints a gigabyte, and with less at first an idle
  // agent collects garbage five times as often. And functions are compiled with their file, at the first start: only
  // what is compiled by then is in the cache of code.
  "--v8-flags=--max-semi-space-size=4,--min-semi-space-size=4,--no-lazy",
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
  program: Program;
}

/** The whole file. */
export async function portable(
  { version, target, deno, program }: PortableParts,
): Promise<Uint8Array<ArrayBuffer>> {
  const encoder = new TextEncoder();
  const files = [
    { name: "testflinger-agent", mode: 0o755, bytes: deno },
    ...Object.entries(program).map(([name, text]) => ({
      name,
      mode: 0o644,
      bytes: encoder.encode(withoutForesight(text)),
    })),
    // As `ls` sorts them in the C locale: the launcher compares sizes in this order.
  ].sort((a, b) => a.name < b.name ? -1 : 1);
  for (const { name } of files) {
    // They stand unquoted in a shell script.
    if (!/^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(name)) throw new Error(`Cannot pack '${name}'`);
  }
  const sums = await Promise.all(
    files.map(async ({ name, bytes }) => `${await sha256(bytes)}  ${name}`),
  );
  const all = await sha256(encoder.encode(sums.join("\n")));
  const id = `${version}-${target.arch}-${all.slice(0, ID_DIGITS)}`;
  const header = await launcher({
    VERSION: version,
    TARGET: target.name,
    DENO: DENO_VERSION,
    ID: id,
    ARCH: target.arch,
    FILES: files.map(({ name }) => `${id}/${name}`).join(" "),
    SIZES: files.map(({ bytes }) => bytes.length).join(" "),
    SUMS: sums.join("\n"),
    MAIN: MAIN_FILE,
    FLAGS: RUN_FLAGS.join(" "),
  });
  const archive = gzipSync(await archiveOf(files), { level: 9 });
  const file = new Uint8Array(header.length + archive.length);
  file.set(header);
  file.set(archive, header.length);
  return file;
}

/**
 * At its start the runtime reads and analyses whatever is named by an `import()` that it understands: all
 * commands and connectors. It understands no calls.
 */
export function withoutForesight(text: string): string {
  return text.replaceAll(/\bimport\(("\.\/[\w.-]+")\)/g, "import(String($1))");
}

interface PackedFile {
  name: string;
  mode: number;
  bytes: Uint8Array;
}

function archiveOf(files: readonly PackedFile[]): Promise<Uint8Array> {
  const common = {
    type: "file",
    mtime: new Date(0),
    uid: 0,
    gid: 0,
    uname: "",
    gname: "",
  } as const;
  return packTar(files.map(({ name, mode, bytes }) => ({
    header: { ...common, name, mode, size: bytes.length },
    body: bytes,
  })));
}

async function launcher(values: Record<string, string>): Promise<Uint8Array> {
  const template = await Deno.readTextFile(new URL("./header.sh", import.meta.url));
  for (let size = HEADER_STEP_BYTES;; size += HEADER_STEP_BYTES) {
    const all: Record<string, string> = { ...values, SKIP: `${size + 1}` };
    const script = template.replaceAll(/@([A-Z0-9_]+)@/g, (_, name) => {
      const value = all[name];
      if (value === undefined) throw new Error(`Cannot fill in @${name}@ of header.sh`);
      return value;
    });
    const bytes = new TextEncoder().encode(script);
    if (bytes.length >= size) continue;
    // The shell never comes here: it has become the program.
    const padded = new Uint8Array(size).fill("#".charCodeAt(0));
    padded.set(bytes);
    padded[size - 1] = "\n".charCodeAt(0);
    return padded;
  }
}
