import { assertEquals, assertStringIncludes } from "@std/assert";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { ImageCache } from "../../connectors/support/image/cache.ts";
import { run } from "./support.ts";

const IMAGE = new TextEncoder().encode("an image");
const DIGEST = createHash("sha256").update(IMAGE).digest("hex");

async function withCache(test: (folder: string, cache: ImageCache) => Promise<void>) {
  const root = await Deno.makeTempDir({ prefix: "cache-" });
  try {
    const folder = join(root, "images");
    const opened = await ImageCache.open(folder, { maxBytes: 1e9, minFreeBytes: 0 });
    if (!opened.ok) throw new Error(opened.why);
    await Deno.writeFile(opened.cache.contentPath(DIGEST), IMAGE);
    await opened.cache.noteUrl({ url: "http://images/a.img", digest: DIGEST, size: IMAGE.length });
    await test(folder, opened.cache);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

Deno.test("cache lists what is kept, with the URLs that have it", () =>
  withCache(async (folder, cache) => {
    await cache.count("hit", IMAGE.length);
    const { status, stdout } = await run("cache", "--dir", folder);
    assertEquals(status, 0);
    assertStringIncludes(stdout, "1 image, 8 bytes of at most");
    assertStringIncludes(stdout, "used 1 time, which saved 8 bytes; 0 downloads");
    assertStringIncludes(stdout, `${DIGEST.slice(0, 12)}  http://images/a.img`);
    const json = JSON.parse((await run("cache", "--dir", folder, "--format", "json")).stdout);
    assertEquals(json.images[0].digest, DIGEST);
  }));

Deno.test("cache verify removes what is damaged, and says so by its status", () =>
  withCache(async (folder, cache) => {
    assertEquals((await run("cache", "verify", "--dir", folder)).status, 0);
    await Deno.writeTextFile(cache.contentPath(DIGEST), "an imagE");
    const { status, stderr } = await run("cache", "verify", "--dir", folder);
    assertEquals(status, 1);
    assertStringIncludes(stderr, "was damaged, and has been removed");
    assertEquals(await cache.list(), []);
  }));

Deno.test("cache says what it does not know, and what is not there yet", async () => {
  assertEquals((await run("cache", "destroy")).status, 2);
  const { status, stdout } = await run("cache", "--dir", "/nonexistent/images");
  assertEquals(status, 0);
  assertStringIncludes(stdout, "no image has been kept yet");
});

Deno.test("cache makes nothing in a folder that is no cache", async () => {
  const folder = await Deno.makeTempDir({ prefix: "no-cache-" });
  try {
    for (const action of ["list", "verify", "prune"]) {
      assertEquals(await run("cache", action, "--dir", folder), {
        status: 1,
        stdout: "",
        stderr:
          `The image cache cannot be used: ${folder} is no image cache: it has no folder 'content'\n`,
      });
    }
    assertEquals([...Deno.readDirSync(folder)], []);
  } finally {
    await Deno.remove(folder);
  }
});

Deno.test({
  name: "cache names the account that may use a cache of another user's",
  ignore: Deno.uid() !== 0,
  fn: () =>
    withCache(async (folder) => {
      await Deno.chown(folder, 65_534, 65_534);
      assertEquals(await run("cache", "prune", "--dir", folder), {
        status: 1,
        stdout: "",
        stderr:
          `The image cache cannot be used: ${folder} belongs to user 65534; try as that user: ` +
          `sudo -u '#65534' testflinger-agent cache prune --dir ${folder}\n`,
      });
    }),
});
