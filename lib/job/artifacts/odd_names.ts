/**
 * Names that are not UTF-8. The runtime cannot open what is called so; standard tools can, which are
 * told the paths on their standard input, each ended by NUL.
 */
import { isUtf8 } from "../../bytes.ts";
import {
  type ArchiveMember,
  contentsOf,
  headerOf,
  type PackOptions,
  type ReadableContents,
  unpackable,
} from "./tar_writer.ts";

/** What `find` says of one entry of a folder. */
interface Entry {
  kind: string;
  mode: number;
  size: number;
  mtime: number;
  name: Uint8Array;
  target: Uint8Array;
}

/** Type, permissions, size and time of what is found, then its name, then where it leads. */
const FORMAT = "%y %m %s %T@\\0%f\\0%l\\0";

/** A place in the tree: where it is on disk, and how it is called in the archive. */
interface Place {
  path: Uint8Array;
  name: Uint8Array;
}

/** The names in a folder that are text; `hasOthers` when there are more. */
export async function textNamesIn(
  path: string,
): Promise<{ names: string[]; hasOthers: boolean }> {
  const all = (await entriesIn(Buffer.from(path))).map(({ name }) => name);
  const text = all.filter((name) => isUtf8(name));
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return { names: text.map((name) => decoder.decode(name)), hasOthers: text.length < all.length };
}

/** Where a link leads whose target is no text. */
export async function oddTarget(path: string): Promise<Uint8Array> {
  return await outputOf(["readlink", "-n", "--", path], new Uint8Array());
}

/** Everything in a folder of which the name is not UTF-8, with all that is in it, as an archive has it. */
export async function* oddMembersOf(
  path: string,
  name: string,
  { buffer, options }: { buffer: Uint8Array; options: PackOptions },
): AsyncGenerator<Uint8Array> {
  const top = { path: Buffer.from(path), name: Buffer.from(name) };
  const left: { place: Place; entry: Entry }[] = [];
  const addFrom = async (folder: Place, isWanted: (name: Uint8Array) => boolean) => {
    const entries = (await entriesIn(folder.path)).filter((entry) => isWanted(entry.name));
    entries.sort((a, b) => Buffer.compare(b.name, a.name));
    for (const entry of entries) left.push({ place: below(folder, entry.name), entry });
  };
  await addFrom(top, (name) => !isUtf8(name));
  for (let next; (next = left.pop()) !== undefined;) {
    options.signal?.throwIfAborted();
    const { place, entry } = next;
    const { kind, mode, size, mtime, target } = entry;
    const common = { name: place.name, size: 0, mode, mtime };
    if (kind === "d") {
      yield headerOf({ ...common, type: "directory" });
      await addFrom(place, () => true);
    } else if (kind === "l") {
      yield headerOf({ ...common, type: "symlink", target });
    } else if (kind === "f") {
      const member: ArchiveMember = { ...common, type: "file", size };
      yield headerOf(member);
      await using file = new OddFile(place.path);
      yield* contentsOf(file, member, buffer, options);
    } else {
      const what = kind === "p" ? "FIFO" : kind === "s" ? "socket" : "device";
      options.onSkipped(new TextDecoder().decode(place.name), unpackable(what));
    }
  }
}

function below({ path, name }: Place, entry: Uint8Array): Place {
  const slash = Buffer.from("/");
  return { path: Buffer.concat([path, slash, entry]), name: Buffer.concat([name, slash, entry]) };
}

async function entriesIn(path: Uint8Array): Promise<Entry[]> {
  const find = ["find", "{}", "-mindepth", "1", "-maxdepth", "1", "-printf", FORMAT];
  const output = await outputOf(["xargs", "-0", "-I{}", ...find], path);
  const fields: Uint8Array[] = [];
  for (let at = 0; at < output.length;) {
    const end = output.indexOf(0, at);
    fields.push(output.subarray(at, end));
    at = end + 1;
  }
  const entries: Entry[] = [];
  for (let at = 0; at + 2 < fields.length; at += 3) {
    const [kind = "", mode, size, mtime] = Buffer.from(fields[at]!).toString("ascii").split(" ");
    entries.push({
      kind,
      mode: parseInt(mode ?? "0", 8),
      size: Number(size),
      mtime: Number(mtime),
      name: fields[at + 1]!,
      target: fields[at + 2]!,
    });
  }
  return entries;
}

function start(argv: readonly string[], input: Uint8Array): Deno.ChildProcess {
  const [program = "", ...args] = argv;
  const child = new Deno.Command(program, {
    args,
    clearEnv: true,
    env: { PATH: "/usr/bin:/bin", LC_ALL: "C" },
    cwd: "/",
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const writer = child.stdin.getWriter();
  writer.write(input).then(() => writer.close()).catch(() => {});
  return child;
}

async function outputOf(argv: readonly string[], input: Uint8Array): Promise<Uint8Array> {
  return (await start(argv, input).output()).stdout;
}

/** A regular file, read by dd: it follows no link and waits for no FIFO that has taken its place. */
class OddFile implements ReadableContents, AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #rest = new Uint8Array();

  constructor(path: Uint8Array) {
    const dd = ["dd", "if={}", "iflag=nofollow,nonblock", "bs=64k", "status=none"];
    this.#child = start(["xargs", "-0", "-I{}", ...dd], path);
    this.#reader = this.#child.stdout.getReader();
  }

  async read(buffer: Uint8Array, offset: number, length: number): Promise<{ bytesRead: number }> {
    while (this.#rest.length === 0) {
      const { done, value } = await this.#reader.read();
      if (done) return { bytesRead: 0 };
      this.#rest = new Uint8Array(value);
    }
    const part = this.#rest.subarray(0, length);
    buffer.set(part, offset);
    this.#rest = this.#rest.subarray(part.length);
    return { bytesRead: part.length };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Also ends dd when the file was not read to its end.
    await this.#reader.cancel();
    await this.#child.status;
  }
}
