import { assert, assertEquals, assertRejects } from "@std/assert";
import { allProcesses } from "../../../lib/process/proc.ts";
import { compressed, GZIP } from "../../../lib/job/artifacts/compress.ts";

const MIB = 1024 * 1024;

/** Noise in pieces of a size, all in the same memory, as an archive is made. */
async function* noise(pieces: number, bytes: number): AsyncGenerator<Uint8Array> {
  const memory = new Uint8Array(bytes);
  for (let i = 0; i < pieces; i++) {
    // Always the same noise: what comes out is compared.
    for (let at = 0; at < bytes; at++) memory[at] = (i * 7919 + at * at * 31 + (at >> 3)) & 0xff;
    yield memory;
  }
}

async function bytesOf(source: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const parts = await Array.fromAsync(source);
  return new Uint8Array(await new Blob(parts as Uint8Array<ArrayBuffer>[]).arrayBuffer());
}

async function unpacked(archive: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const packed = ReadableStream.from(archive) as ReadableStream<Uint8Array<ArrayBuffer>>;
  return await bytesOf(packed.pipeThrough(new DecompressionStream("gzip")));
}

/** Runs with a program in the place of gzip(1). */
async function withGzip(script: string, run: (gzip: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "gzip-" });
  try {
    const gzip = `${folder}/gzip`;
    await Deno.writeTextFile(gzip, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    await run(gzip);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const MARKED = "touch $0.ran; exec gzip $*";

async function ran(gzip: string): Promise<boolean> {
  return await Deno.stat(`${gzip}.ran`).then(() => true, () => false);
}

Deno.test("many small members are compressed by gzip(1), and nothing of them is lost", async () => {
  await withGzip(MARKED, async (gzip) => {
    const archive = await unpacked(compressed(noise(3000, 1536), gzip));
    assertEquals(archive, await bytesOf(copied(noise(3000, 1536))));
    assert(await ran(gzip));
  });
});

Deno.test("the same members make the same bytes by gzip(1)", async () => {
  assert(GZIP !== undefined);
  const once = await bytesOf(compressed(noise(3000, 1536), GZIP));
  assertEquals(await bytesOf(compressed(noise(3000, 1536), GZIP)), once);
});

for (
  const { what, pieces, bytes } of [
    { what: "large members", pieces: 64, bytes: 64 * 1024 },
    { what: "a small archive", pieces: 100, bytes: 1536 },
  ]
) {
  Deno.test(`${what} start no program`, async () => {
    await withGzip(MARKED, async (gzip) => {
      const archive = await unpacked(compressed(noise(pieces, bytes), gzip));
      assertEquals(archive, await bytesOf(copied(noise(pieces, bytes))));
      assert(!await ran(gzip));
    });
  });
}

for (
  const { what, script } of [
    { what: "fails at once", script: "exit 3" },
    { what: "fails half way", script: "head -c 300000; exit 3" },
    { what: "is killed", script: "head -c 300000; kill -KILL $$" },
  ]
) {
  Deno.test(`a gzip(1) that ${what} is an error and no short archive`, async () => {
    await withGzip(script, async (gzip) => {
      await assertRejects(
        () => bytesOf(compressed(noise(3000, 1536), gzip)),
        Error,
        "gzip failed with exit status",
      );
    });
  });
}

Deno.test("an archive that cannot be made whole is an error, although gzip(1) ends well", async () => {
  async function* broken(): AsyncGenerator<Uint8Array> {
    yield* noise(3000, 1536);
    throw new Error("the disk is gone");
  }
  await assertRejects(() => bytesOf(compressed(broken(), GZIP)), Error, "the disk is gone");
});

Deno.test("gzip(1) ends, and the files are closed, when nobody wants the rest", async () => {
  await withGzip("echo $$ >$0.pid; exec gzip $*", async (gzip) => {
    let isClosed = false;
    async function* endless(): AsyncGenerator<Uint8Array> {
      try {
        while (true) yield* noise(100, 1536);
      } finally {
        isClosed = true;
      }
    }
    const archive = compressed(endless(), gzip);
    assert(!(await archive.next()).done);
    await archive.return(undefined);
    assert(isClosed);
    const pid = (await Deno.readTextFile(`${gzip}.pid`)).trim();
    assertEquals((await allProcesses()).filter((one) => String(one.pid) === pid), []);
  });
});

Deno.test("what is compressed is not held in memory", async () => {
  let made = 0;
  async function* counted(): AsyncGenerator<Uint8Array> {
    for await (const piece of noise(20_000, 1536)) {
      made += piece.length;
      yield piece;
    }
  }
  const archive = compressed(counted(), GZIP);
  await archive.next();
  // What has been tried, and what is in pipes and streams.
  assert(made < 4 * MIB, `${made} bytes were made for the first ones`);
  await archive.return(undefined);
});

async function* copied(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const piece of source) yield piece.slice();
}
