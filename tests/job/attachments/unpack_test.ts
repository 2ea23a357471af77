import { gzipSync } from "node:zlib";
import { assert, assertEquals } from "@std/assert";
import { unpackAttachments } from "../../../lib/job/attachments/unpack.ts";
import { after, moduleAt, runScript } from "../../support/script.ts";
import { LIMITS, noise, refused, streamOf, TempFolder, treeOf, unpacked } from "./support.ts";
import { type BuiltMember, tarOf } from "./tar_builder.ts";

const HELLO = new TextEncoder().encode("hello\n");

function archiveOf(...members: BuiltMember[]): Uint8Array {
  return gzipSync(tarOf(members));
}

Deno.test("an archive that comes one byte at a time is unpacked like any other", async () => {
  await using folder = new TempFolder();
  const archive = archiveOf({ name: "test/a", data: HELLO }, {
    name: "provision/b",
    pax: { mtime: "1700000000.25" },
    data: HELLO,
  });
  const result = unpacked(
    await unpackAttachments(streamOf(archive, 1), folder.path, { limits: LIMITS }),
  );
  assertEquals([result.members, result.bytes], [2, 12]);
  assertEquals(await Deno.readTextFile(`${folder.path}/provision/b`), "hello\n");
  const { mtime } = await Deno.lstat(`${folder.path}/provision/b`);
  assertEquals(mtime?.getTime(), 1700000000250);
});

Deno.test("an archive may have exactly as many members as the limit says, not one more", async () => {
  const archive = archiveOf({ name: "test", type: "5" }, { name: "test/a" });
  for (const [maxMembers, ok] of [[2, true], [1, false]] as const) {
    await using folder = new TempFolder();
    const result = await unpackAttachments(streamOf(archive), folder.path, {
      limits: { ...LIMITS, maxMembers },
    });
    assertEquals(result.ok, ok);
    if (!ok) assertEquals(refused(result).reason, `"test/a": is one member too many (at most 1)`);
  }
});

Deno.test("a part of a name may be as long as the limit says, not longer", async () => {
  const archive = archiveOf({ name: "test/abc" });
  for (const [maxName, ok] of [[4, true], [3, false]] as const) {
    await using folder = new TempFolder();
    const result = await unpackAttachments(streamOf(archive), folder.path, {
      limits: { ...LIMITS, maxName },
    });
    assertEquals(result.ok, ok);
  }
});

Deno.test("a download that is over the limit is refused without reading on", async () => {
  await using folder = new TempFolder();
  const piece = noise(60_000);
  const archive = archiveOf(
    ...Array.from({ length: 20 }, (_, i) => ({ name: `test/${i}`, data: piece })),
  );
  let taken = 0;
  let cancelled = false;
  const counted = new ReadableStream<Uint8Array>({
    pull(controller) {
      controller.enqueue(archive.slice(taken, taken + 10_000));
      taken += 10_000;
    },
    cancel() {
      cancelled = true;
    },
  }, { highWaterMark: 0 });
  const result = refused(
    await unpackAttachments(counted, folder.path, { limits: { ...LIMITS, maxDownload: 100_000 } }),
  );
  assertEquals(result.kind, "archive");
  assert(result.reason.startsWith("the archive has more than 100000 bytes"), result.reason);
  assert(cancelled);
  assert(taken <= 120_000, `${taken} bytes were read`);
  assertEquals(treeOf(folder.path), []);
});

Deno.test("a refused archive is not downloaded to its end", async () => {
  await using folder = new TempFolder();
  const archive = archiveOf({ name: "/etc/passwd", data: HELLO }, {
    name: "test/a",
    data: noise(10_000_000),
  });
  let taken = 0;
  const counted = streamOf(archive, 10_000).pipeThrough(
    new TransformStream({
      transform(chunk, controller) {
        taken += chunk.length;
        controller.enqueue(chunk);
      },
    }),
  );
  refused(await unpackAttachments(counted, folder.path, { limits: LIMITS }));
  assert(taken < 1_000_000, `${taken} bytes were read`);
});

Deno.test("a download that breaks off says so, and leaves nothing behind", async () => {
  await using folder = new TempFolder();
  const archive = archiveOf({ name: "test/a", data: HELLO }, {
    name: "test/b",
    data: noise(100_000),
  });
  let sent = false;
  const breaking = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (sent) return controller.error(new Error("connection\nreset"));
      controller.enqueue(archive.slice(0, 80_000));
      sent = true;
    },
  }, { highWaterMark: 0 });
  const result = refused(await unpackAttachments(breaking, folder.path, { limits: LIMITS }));
  assertEquals(result.kind, "source");
  assert(
    result.reason.startsWith("the archive could not be read: connection reset"),
    result.reason,
  );
  assertEquals(treeOf(folder.path), []);
});

Deno.test("unpacking stops when it is told to while the server sends nothing", async () => {
  await using folder = new TempFolder();
  const archive = archiveOf({ name: "test/a", data: HELLO });
  const stop = new AbortController();
  let cancelled = false;
  let sent = false;
  const stuck = new ReadableStream<Uint8Array>({
    pull(controller) {
      if (!sent) {
        controller.enqueue(archive.slice(0, 20));
        sent = true;
        return;
      }
      queueMicrotask(() => stop.abort(new Error("the agent stops")));
      return new Promise(() => {});
    },
    cancel() {
      cancelled = true;
    },
  }, { highWaterMark: 0 });
  const result = refused(
    await unpackAttachments(stuck, folder.path, { limits: LIMITS, signal: stop.signal }),
  );
  assertEquals([result.kind, result.reason], [
    "stopped",
    "unpacking was stopped: the agent stops",
  ]);
  assert(cancelled);
});

Deno.test("unpacking that was stopped before it began reads nothing", async () => {
  await using folder = new TempFolder();
  const result = refused(
    await unpackAttachments(streamOf(archiveOf({ name: "test/a" })), folder.path, {
      limits: LIMITS,
      signal: AbortSignal.abort(new Error("the agent stops")),
    }),
  );
  assertEquals(result.kind, "stopped");
  assertEquals(treeOf(folder.path), []);
});

Deno.test("a folder that is missing, a link, a file or not empty is refused and left alone", async () => {
  await using root = new TempFolder();
  const archive = archiveOf({ name: "test/a", data: HELLO });
  await Deno.mkdir(`${root.path}/full`);
  await Deno.writeTextFile(`${root.path}/full/mine`, "mine");
  await Deno.mkdir(`${root.path}/empty`);
  await Deno.symlink("empty", `${root.path}/link`);
  for (const name of ["missing", "full/mine", "link", "full"]) {
    const result = refused(
      await unpackAttachments(streamOf(archive), `${root.path}/${name}`, { limits: LIMITS }),
    );
    assertEquals(result.kind, "disk");
    assert(result.reason.includes(name) || name === "missing", result.reason);
  }
  assertEquals(treeOf(root.path).map(({ path }) => path), ["empty", "full", "full/mine", "link"]);
});

Deno.test("a disk that takes no more fails with the member's name and leaves nothing behind", async () => {
  await using root = new TempFolder();
  await Deno.mkdir(`${root.path}/attachments`);
  const archive = archiveOf(
    { name: "test/small", data: HELLO },
    { name: "test/large", data: noise(240_000) },
  );
  await Deno.writeFile(`${root.path}/archive`, archive);
  const result = await unpackInChild(root.path, "trap '' XFSZ; ulimit -f 200");
  assertEquals(result.ok, false);
  assertEquals(result.kind, "disk");
  assert(result.reason?.startsWith(`"test/large": cannot be written: File too large`));
  assertEquals(treeOf(`${root.path}/attachments`), []);
});

Deno.test("permissions do not depend on the agent's umask", async () => {
  for (const umask of ["000", "077"]) {
    await using root = new TempFolder();
    await Deno.mkdir(`${root.path}/attachments`);
    const members: BuiltMember[] = [
      { name: "test/open", mode: 0o6777 },
      { name: "test/closed", mode: 0 },
      { name: "test/folder", type: "5", mode: 0o3777 },
    ];
    await Deno.writeFile(`${root.path}/archive`, archiveOf(...members));
    assertEquals((await unpackInChild(root.path, `umask ${umask}`)).ok, true);
    assertEquals(
      treeOf(`${root.path}/attachments`).map(({ path, info }) => [
        path,
        ((info.mode ?? 0) & 0o7777).toString(8),
      ]),
      [["test", "755"], ["test/closed", "600"], ["test/folder", "755"], ["test/open", "755"]],
    );
  }
});

/** Unpacks `root/archive` in a process of its own, started by a shell after `before`. */
async function unpackInChild(
  root: string,
  before: string,
): Promise<{ ok: boolean; kind?: string; reason?: string }> {
  const script = `
    import { unpackAttachments } from ${moduleAt("lib/job/attachments/unpack.ts")};
    const [root, limits] = Deno.args;
    const archive = await Deno.open(root + "/archive");
    const result = await unpackAttachments(archive.readable, root + "/attachments", {
      limits: JSON.parse(limits),
    });
    console.log(JSON.stringify(result));`;
  return JSON.parse(
    await runScript(script, { through: after(before), args: [root, JSON.stringify(LIMITS)] }),
  );
}
