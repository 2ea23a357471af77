/** An archive compressed as gzip, in this process or by gzip(1) on another core. */
import { exists } from "../../path.ts";
import { inOwnSession } from "../../own_session.ts";
import { PIECE_BYTES } from "./tar_writer.ts";

/** Where systems have gzip(1). */
export const GZIP: string | undefined = ["/usr/bin/gzip", "/bin/gzip"].find(exists);

/** So much of an archive shows what is in it. One that is smaller is not worth a program. */
const TRIED_BYTES = 512 * 1024;

/**
 * Members that are smaller than this on average cost this thread more than their compression: with gzip(1) both go
 * on at the same time. Larger ones are compressed faster here than by it.
 */
const SMALL_MEMBER_BYTES = 16 * 1024;

/**
 * Compresses an archive while it is made.
 *
 * @param members One piece or more for each member, in their order.
 * @param gzip Where gzip(1) is, if it may be used. An error says so when it fails.
 */
export async function* compressed(
  members: AsyncGenerator<Uint8Array>,
  gzip: string | undefined,
): AsyncGenerator<Uint8Array> {
  try {
    const tried: Uint8Array[] = [];
    let bytes = 0;
    while (bytes < TRIED_BYTES) {
      const next = await members.next();
      if (next.done) break;
      // The next one may be read into the same memory.
      tried.push(next.value.slice());
      bytes += next.value.length;
    }
    const pieces = inPieces(tried, members);
    if (gzip !== undefined && bytes >= TRIED_BYTES && bytes / tried.length < SMALL_MEMBER_BYTES) {
      yield* byGzip(gzip, pieces);
    } else {
      // No other bytes than in plain ArrayBuffers are made here, which is all that the types differ in.
      const here = new CompressionStream("gzip") as ReadableWritablePair<Uint8Array, Uint8Array>;
      yield* ReadableStream.from(pieces).pipeThrough(here);
    }
  } finally {
    // A file that is being packed is closed, too, when nobody wants the rest.
    await members.return(undefined);
  }
}

async function* byGzip(
  gzip: string,
  pieces: AsyncGenerator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const child = inOwnSession(gzip, {
    // Without the time of the archive: the same files make the same bytes.
    args: ["-n", "-6"],
    clearEnv: true,
    env: { PATH: "/usr/bin:/bin" },
    cwd: "/",
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const fed = ReadableStream.from(pieces).pipeTo(child.stdin);
  // It is waited for below; until then a failure must not count as one that nobody looks at.
  fed.catch(() => {});
  try {
    yield* child.stdout;
    const { success, code } = await child.status;
    if (!success) throw new Error(`${gzip} failed with exit status ${code}`);
    // Where making the archive failed, gzip ended well, but with too little.
    await fed;
  } finally {
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await Promise.allSettled([fed, child.status]);
  }
}

/**
 * Many small pieces as fewer of PIECE_BYTES: each costs a way through the streams. All of them are in the same memory:
 * what takes them asks for the next one only when it has done with the last, since it has room for one.
 */
async function* inPieces(
  first: readonly Uint8Array[],
  rest: AsyncGenerator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const piece = new Uint8Array(PIECE_BYTES);
  let filled = 0;
  for (let at = 0;; at++) {
    const next = at < first.length ? { value: first[at]! } : await rest.next();
    if (next.done) break;
    let bytes: Uint8Array = next.value;
    while (bytes.length > 0) {
      const part = bytes.subarray(0, PIECE_BYTES - filled);
      piece.set(part, filled);
      filled += part.length;
      bytes = bytes.subarray(part.length);
      if (filled === PIECE_BYTES) {
        yield piece;
        filled = 0;
      }
    }
  }
  yield piece.subarray(0, filled);
}
