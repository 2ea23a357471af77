import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { createHash } from "node:crypto";
import { join } from "node:path";
import * as z from "zod";
import type { ConnectorContext } from "../../connectors/context.ts";
import { makeContext } from "../../connectors/make_context.ts";
import { commonShape } from "../../connectors/support/config.ts";
import { ProvisioningError } from "../../connectors/support/errors.ts";
import { SPARE_BYTES } from "../../connectors/support/http/transfer.ts";
import { openArriving } from "../../connectors/support/image/arriving.ts";
import type { ArrivingImage } from "../../connectors/support/image/image_source.ts";
import { ImageCache } from "../../connectors/support/image/cache.ts";
import { systemClock } from "../../lib/clock.ts";
import { recordingLog } from "../support/recording_log.ts";
import { mayMount, SmallDisk } from "../support/small_disk.ts";
import { inStage } from "./support/context.ts";
import { startEntry } from "./support/entry_process.ts";
import { Lab } from "./support/lab.ts";
import { closedPort, httpStub, rawHttpStub } from "./support/stubs.ts";

const IMAGE = Uint8Array.from({ length: 3_000_000 }, (_, i) => (i * 7919 + (i >> 8)) % 251);
const SHA256 = createHash("sha256").update(IMAGE).digest("hex");
const GENEROUS = { maxBytes: 1e12, minFreeBytes: 0 };

async function openCache(lab: Lab, limits = GENEROUS, name = "cache"): Promise<ImageCache> {
  const opened = await ImageCache.open(join(lab.root, name), limits);
  if (!opened.ok) throw new Error(opened.why);
  return opened.cache;
}

/** The image, of which the rest comes when it may. */
function inTwoParts(bytes: number, mayGoOn: Promise<void>): ReadableStream<Uint8Array> {
  return ReadableStream.from((async function* () {
    yield IMAGE.subarray(0, bytes);
    await mayGoOn;
    yield IMAGE.subarray(bytes);
  })());
}

async function bytesOf(image: ArrivingImage): Promise<Uint8Array> {
  return new Uint8Array(await new Response(image.stream()).arrayBuffer());
}

/** Gets an image as one job does. */
function get(
  lab: Lab,
  url: string,
  cache: ImageCache | undefined,
  sha256?: string,
): Promise<Uint8Array> {
  return inStage(lab, async (ctx: ConnectorContext) => {
    await using image = await openArriving(ctx, { url, sha256 }, cache);
    return await bytesOf(image);
  });
}

function inRealTime(lab: Lab): ConnectorContext {
  const { signal } = new AbortController();
  return makeContext({
    connector: "work",
    stage: "provision",
    config: z.object(commonShape).parse({}),
    configValues: {},
    jobFile: "testflinger.json",
    cwd: lab.cwd,
    env: lab.env(),
    clock: systemClock,
    limits: systemClock,
    log: recordingLog(),
    signal,
    forceStop: signal,
    print: () => Promise.resolve(),
  }).ctx;
}

/** A server with one image, of which it tells the version. */
function imageServer(image: () => Uint8Array<ArrayBuffer> = () => IMAGE, etag = () => '"v1"') {
  const counts = { whole: 0, notModified: 0 };
  const stub = httpStub((_, raw) => {
    if (raw.headers.get("if-none-match") === etag()) {
      counts.notModified++;
      return new Response(null, { status: 304 });
    }
    counts.whole++;
    return new Response(image(), {
      headers: { etag: etag(), "content-length": String(image().length) },
    });
  });
  return { ...stub, url: `${stub.url}/i.img`, counts };
}

Deno.test("an image can be read while it arrives", async () => {
  await using lab = await Lab.open();
  const rest = Promise.withResolvers<void>();
  await using server = httpStub(() =>
    new Response(
      inTwoParts(2_500_000, rest.promise),
    )
  );
  await inStage(lab, async (ctx) => {
    await using image = await openArriving(ctx, { url: `${server.url}/i` }, undefined);
    assertEquals(await image.head(4), IMAGE.subarray(0, 4));
    const reader = image.stream().getReader();
    const first = await reader.read();
    assert((first.value?.length ?? 0) > 0);
    rest.resolve();
    let length = first.value?.length ?? 0;
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      length += next.value.length;
    }
    assertEquals(length, IMAGE.length);
  });
  assertEquals([...Deno.readDirSync(lab.cwd)].filter(({ name }) => name.startsWith(".image")), []);
});

Deno.test("an image with the wrong checksum fails before its last piece is handed out", async () => {
  await using lab = await Lab.open();
  await using server = imageServer();
  for (const cache of [undefined, await openCache(lab)]) {
    let read = 0;
    await assertRejects(
      () =>
        inStage(lab, async (ctx) => {
          const source = { url: server.url, sha256: "0".repeat(64) };
          await using image = await openArriving(ctx, source, cache);
          for await (const piece of image.stream()) read += piece.length;
        }),
      ProvisioningError,
      "it is not the right file",
    );
    assert(read < IMAGE.length);
  }
  // Kept under its own digest, but no later job takes it without having it sent again.
  assertEquals(await get(lab, server.url, await openCache(lab)), IMAGE);
  assertEquals(server.counts, { whole: 3, notModified: 0 });
});

Deno.test("a job that wants another checksum does not spoil the image for those that follow it", async () => {
  await using lab = await Lab.open();
  const rest = Promise.withResolvers<void>();
  let asked = 0;
  await using server = httpStub(() => {
    asked++;
    return new Response(
      inTwoParts(1_000_000, rest.promise),
    );
  });
  const cache = await openCache(lab);
  const url = `${server.url}/i`;
  const ctx = inRealTime(lab);
  await using leading = await openArriving(ctx, { url, sha256: "0".repeat(64) }, cache);
  const wrong = bytesOf(leading);
  wrong.catch(() => {});
  await using following = await openArriving(ctx, { url, sha256: SHA256 }, cache);
  const right = bytesOf(following);
  rest.resolve();
  await assertRejects(() => wrong, ProvisioningError, "it is not the right file");
  assertEquals(await right, IMAGE);
  assertEquals(asked, 1);
});

Deno.test("an image is read to its end, however often it gets its final name meanwhile", async () => {
  await using lab = await Lab.open();
  const cache = await openCache(lab);
  for (let n = 0; n < 100; n++) {
    const image = IMAGE.slice(0, 1000 + n);
    await using server = imageServer(() => image);
    const ctx = inRealTime(lab);
    await using arriving = await openArriving(ctx, { url: server.url }, cache);
    assertEquals((await bytesOf(arriving)).length, image.length);
  }
});

Deno.test("the second job with an image downloads no byte of it", async () => {
  await using lab = await Lab.open();
  await using server = imageServer();
  const cache = await openCache(lab);
  assertEquals(await get(lab, server.url, cache), IMAGE);
  assertEquals(await get(lab, server.url, cache), IMAGE);
  assertEquals(server.counts, { whole: 1, notModified: 1 });
  assertEquals(await cache.statistics(), { hits: 1, misses: 1, savedBytes: IMAGE.length });
  assertEquals((await cache.list())[0]?.urls, [server.url]);
});

Deno.test("an image that has changed on the server is downloaded again", async () => {
  await using lab = await Lab.open();
  const other = IMAGE.map((byte) => 255 - byte);
  let version = 1;
  await using server = imageServer(() => version === 1 ? IMAGE : other, () => `"v${version}"`);
  const cache = await openCache(lab);
  assertEquals(await get(lab, server.url, cache), IMAGE);
  version = 2;
  assertEquals(await get(lab, server.url, cache), other);
  assertEquals((await cache.list()).length, 2);
});

Deno.test("an image that was damaged on disk is noticed, removed, and had anew", async () => {
  await using lab = await Lab.open();
  await using server = imageServer();
  const cache = await openCache(lab);
  await get(lab, server.url, cache);
  const damaged = IMAGE.slice();
  damaged[damaged.length - 1] = 252;
  await Deno.writeFile(cache.contentPath(SHA256), damaged);
  await assertRejects(() => get(lab, server.url, cache), ProvisioningError, "was damaged");
  assertEquals(await get(lab, server.url, cache), IMAGE);
});

Deno.test("jobs that want one image at the same time download it once", async () => {
  await using lab = await Lab.open();
  const go = Promise.withResolvers<void>();
  let asked = 0;
  let begun = 0;
  await using server = httpStub(() => {
    asked++;
    return new Response(
      inTwoParts(1_000_000, go.promise),
      { headers: { "content-length": String(IMAGE.length), etag: '"x"' } },
    );
  });
  const cache = await openCache(lab);
  const url = `${server.url}/i`;
  // Followers look at a file that another process writes, in the time of the wall.
  const ctx = inRealTime(lab);
  const jobs = Array.from({ length: 10 }, async () => {
    await using image = await openArriving(ctx, { url }, cache);
    // All have the beginning before there is an end.
    assertEquals(await image.head(4), IMAGE.subarray(0, 4));
    if (++begun === 10) go.resolve();
    return await bytesOf(image);
  });
  for (const bytes of await Promise.all(jobs)) assertEquals(bytes, IMAGE);
  assertEquals(asked, 1);
});

Deno.test("a job that ends in the middle leaves the download to another one, which goes on with it", async () => {
  await using lab = await Lab.open();
  const ranges: (string | undefined)[] = [];
  const half = 1_500_000;
  let isWhole = false;
  await using server = rawHttpStub((request) => {
    const range = /^range: bytes=(\d+)-/im.exec(request)?.[1];
    ranges.push(range);
    const from = Number(range ?? 0);
    const to = isWhole ? IMAGE.length : half;
    const head = [
      range === undefined ? "HTTP/1.1 200 OK" : "HTTP/1.1 206 Partial Content",
      `content-length: ${IMAGE.length - from}`,
      'etag: "x"',
      ...(range === undefined
        ? []
        : [`content-range: bytes ${from}-${IMAGE.length - 1}/${IMAGE.length}`]),
    ];
    return { head, body: IMAGE.subarray(from, Math.max(from, to)) };
  });
  const cache = await openCache(lab);
  const url = `http://127.0.0.1:${server.port}/i`;
  await assertRejects(() => get(lab, url, cache), ProvisioningError, "Cannot download");
  isWhole = true;
  assertEquals(await get(lab, url, cache), IMAGE);
  assertEquals(ranges.at(-1), String(half));
});

Deno.test("images that were not used for long make room, and what does not fit is not kept", async () => {
  await using lab = await Lab.open();
  await using server = imageServer();
  const cache = await openCache(lab, { maxBytes: 2.5 * IMAGE.length, minFreeBytes: 0 });
  const images = [1, 2, 3].map((n) => {
    const image = IMAGE.slice();
    image[0] = n;
    return image;
  });
  for (const [n, image] of images.entries()) {
    await using one = imageServer(() => image, () => `"${n}"`);
    await get(lab, one.url, cache);
    for (const { digest, path } of await cache.list()) {
      // As if the ones before had been used longer ago.
      const { mtime } = await Deno.stat(path);
      const earlier = new Date((mtime?.getTime() ?? 0) - 1000);
      await Deno.utime(cache.contentPath(digest), earlier, earlier);
    }
  }
  const kept = (await cache.list()).map(({ digest }) => digest);
  const wanted = images.slice(1).map((image) => createHash("sha256").update(image).digest("hex"));
  assertEquals(kept.sort(), wanted.sort());

  const small = await openCache(lab, { maxBytes: 1000, minFreeBytes: 0 }, "small");
  assertEquals(await get(lab, server.url, small), IMAGE);
  assertEquals(await small.list(), []);
});

Deno.test("free space that the host is to keep is never taken", async () => {
  await using lab = await Lab.open();
  await using server = imageServer();
  const cache = await openCache(lab, { maxBytes: 1e12, minFreeBytes: 1e15 });
  assertEquals(await get(lab, server.url, cache), IMAGE);
  assertEquals(await cache.list(), []);
});

Deno.test("an image on its way is reckoned with when room is made for another one", async () => {
  await using lab = await Lab.open();
  const cache = await openCache(lab, { maxBytes: 10_000, minFreeBytes: 0 });
  const [first, second] = ["http://images/1", "http://images/2"] as const;
  {
    using _arriving = await cache.tryLock(first);
    assert(await cache.reserve({ url: first, size: 6_000 }));
    assertEquals(await cache.reserve({ url: second, size: 6_000 }), false);
    assert(await cache.reserve({ url: second, size: 4_000 }));
    await cache.forgetIncoming(second);
  }
  // Nobody goes on with it, and nothing of it is there.
  assert(await cache.reserve({ url: second, size: 6_000 }));
});

Deno.test("an image of unknown size never takes the free space that the host is to keep", async () => {
  await using lab = await Lab.open();
  await using server = httpStub(() => new Response(ReadableStream.from([IMAGE])));
  const cache = await openCache(lab, { maxBytes: 1e12, minFreeBytes: 1e15 });
  assertEquals(await get(lab, `${server.url}/i`, cache), IMAGE);
  assertEquals(await cache.list(), []);
});

Deno.test("a cache of another user, or that others may write to, is not used", async () => {
  await using lab = await Lab.open();
  const folder = join(lab.root, "open");
  await Deno.mkdir(folder);
  await Deno.chmod(folder, 0o777);
  const opened = await ImageCache.open(folder, GENEROUS);
  assertEquals(opened.ok, false);
  assertStringIncludes(opened.ok ? "" : opened.why, "chmod 700");
  const link = join(lab.root, "link");
  await Deno.symlink(folder, link);
  assertEquals((await ImageCache.open(link, GENEROUS)).ok, false);
});

Deno.test("a server that is away does not matter for an image that the job names by its checksum", async () => {
  await using lab = await Lab.open();
  const cache = await openCache(lab);
  const url = `http://127.0.0.1:${closedPort()}/i`;
  await Deno.writeFile(cache.contentPath(SHA256), IMAGE);
  await cache.noteUrl({ url, digest: SHA256, size: IMAGE.length, etag: '"x"' });
  assertEquals(await get(lab, url, cache, SHA256), IMAGE);
  await assertRejects(() => get(lab, url, cache), ProvisioningError, "Cannot download");
});

Deno.test("a process that is killed at any moment leaves a cache that works", async () => {
  await using lab = await Lab.open();
  const cache = await openCache(lab);
  await using server = imageServer();
  // What there may be after a kill: half of a note, an image without one, a note without an image.
  await Deno.writeTextFile(join(cache.folder, "urls", "0".repeat(32) + ".json"), '{"url": "ht');
  await Deno.writeFile(cache.incomingPath(server.url), IMAGE.subarray(0, 100));
  await Deno.writeTextFile(`${cache.incomingPath(server.url)}.json`, "{");
  await Deno.writeFile(cache.contentPath("f".repeat(64)), IMAGE);
  await cache.noteUrl({ url: server.url, digest: "e".repeat(64), size: 1, etag: '"v1"' });
  assertEquals(await get(lab, server.url, cache), IMAGE);
  const old = new Date(0);
  await Deno.writeTextFile(join(cache.folder, "incoming", "stale"), "x");
  await Deno.utime(join(cache.folder, "incoming", "stale"), old, old);
  await cache.prune(Date.now());
  const left = [...Deno.readDirSync(join(cache.folder, "incoming"))].map(({ name }) => name);
  assert(!left.includes("stale"));
  assertEquals([...Deno.readDirSync(join(cache.folder, "urls"))].length, 1);
});

for (const kind of ["blocks", "files"] as const) {
  Deno.test({
    name: `a cache whose disk has no ${kind} left, at any of its writes, costs no job its image`,
    ignore: !mayMount,
    async fn() {
      let isKept = false;
      for (let left = 0; !isKept; left++) {
        assert(left < 20, "the image is not kept with any amount of room");
        await using lab = await Lab.open();
        await using server = imageServer();
        const folder = join(lab.root, "cache");
        await Deno.mkdir(folder);
        await using disk = await SmallDisk.mount(folder, { mib: 128 });
        const cache = await openCache(lab);
        // Less room than this is seen beforehand.
        const needed = (IMAGE.length + SPARE_BYTES) / 4096;
        await disk.leave({ [kind]: Math.ceil(kind === "blocks" ? needed - 2 + left : left) });
        assertEquals(await get(lab, server.url, cache), IMAGE);
        isKept = (await cache.list()).some(({ urls }) => urls.includes(server.url));
        assertEquals(lab.log.some((line) => line.includes("WARNING")), !isKept, lab.log.join("\n"));
        const names = await Array.fromAsync(Deno.readDir(join(folder, "urls")));
        assert(names.every(({ name }) => name.endsWith(".json")), "half a note is left");
      }
    },
  });
}

Deno.test("a stage that is killed while an image arrives leaves what has come to the next one", async () => {
  await using lab = await Lab.open();
  await lab.config({ device_ip: "127.0.0.1", test_device: "/dev/sda", reboot_script: ["true"] });
  for (const [n, sent] of [0, 1_000_000, IMAGE.length - 1, IMAGE.length].entries()) {
    let limit = sent;
    const reached = Promise.withResolvers<void>();
    const over = Promise.withResolvers<void>();
    let bytes = 0;
    await using server = httpStub((_, raw) => {
      if (raw.headers.get("if-none-match") !== null) return new Response(null, { status: 304 });
      const from = Number(/^bytes=(\d+)-/.exec(raw.headers.get("range") ?? "")?.[1] ?? 0);
      const body = new ReadableStream<Uint8Array>({
        async start(controller) {
          const piece = IMAGE.subarray(from, limit);
          bytes += piece.length;
          if (piece.length > 0) controller.enqueue(piece);
          reached.resolve();
          if (limit < IMAGE.length) await over.promise;
          try {
            controller.close();
          } catch {
            // Who asked is gone.
          }
        },
      });
      const size = IMAGE.length - from;
      return new Response(body, {
        status: from > 0 ? 206 : 200,
        headers: {
          etag: '"1"',
          "content-length": String(size),
          ...(from > 0 && { "content-range": `bytes ${from}-${IMAGE.length - 1}/${IMAGE.length}` }),
        },
      });
    });
    const url = `${server.url}/i`;
    const cache = await openCache(lab, GENEROUS, `cache-${n}`);
    await lab.job({ provision_data: { url } });
    const running = startEntry(lab, ["netboot", "provision", "-c", "c.yaml", "testflinger.json"], {
      DISABLE_CONTROL_HOST_POWERCYCLE: "1",
      TESTFLINGER_IMAGE_CACHE: cache.folder,
      TESTFLINGER_IMAGE_CACHE_MAX: "1000000000",
    });
    await reached.promise;
    running.child.kill("SIGKILL");
    await running.end();
    over.resolve();
    limit = IMAGE.length;
    assertEquals(await get(lab, url, cache), IMAGE);
    assertEquals((await cache.list()).map(({ digest }) => digest), [SHA256]);
    // At most what the killed one had not written yet was sent twice.
    assert(bytes <= IMAGE.length + sent, `${bytes} bytes`);
  }
});
