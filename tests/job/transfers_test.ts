import { assertEquals } from "@std/assert";
import { packTar } from "modern-tar";
import type { Transfer } from "../../lib/observe/events.ts";
import { Lab } from "../support/lab.ts";

const SIZE = 500_000;

/** An archive with one attachment that cannot be compressed. */
async function archive(): Promise<Uint8Array> {
  const body = new Uint8Array(SIZE);
  for (let at = 0; at < SIZE; at += 65_536) {
    crypto.getRandomValues(body.subarray(at, Math.min(SIZE, at + 65_536)));
  }
  const tar = await packTar([{ header: { name: "test/big", size: SIZE }, body }]);
  const gzip = new Blob([new Uint8Array(tar)]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(gzip).arrayBuffer());
}

Deno.test("who watches learns how far attachments and artifacts have come, and that they are over", async () => {
  const told: Transfer[] = [];
  await using lab = await Lab.open({
    config: { test_command: "mkdir artifacts; cp attachments/test/big artifacts/" },
    sink: (event) => {
      if (event.type === "transfer") told.push(event);
    },
  });
  // The first upload is refused without a look at it, the second one is taken.
  let uploads = 0;
  lab.sandbox.intercept((request) =>
    request.method === "POST" && new URL(request.url).pathname.endsWith("/artifact") &&
      ++uploads === 1
      ? new Response("busy", { status: 503 })
      : undefined
  );
  const gzip = await archive();
  const jobId = await lab.run({
    attachments_status: "complete",
    test_data: { test_cmds: "x", attachments: [{ local: "big" }] },
  }, gzip);
  await lab.eventually(() => told.at(-1)?.isOver === true, "the last transfer is over");

  const of = (what: string) => told.filter((transfer) => transfer.what === what);
  for (const what of ["Fetching the attachments", "Unpacking the attachments"]) {
    const steps = of(what);
    assertEquals(
      steps.every(({ total, job: id }) => total === gzip.length && id === jobId),
      true,
    );
    assertEquals([steps[0]?.bytes, steps.at(-1)?.bytes, steps.at(-1)?.isOver], [
      0,
      gzip.length,
      true,
    ]);
    assertEquals(steps.filter(({ isOver }) => isOver).length, 1);
  }
  const steps = of("Uploading the artifacts");
  assertEquals(uploads, 2);
  assertEquals((steps.at(-1)?.bytes ?? 0) > SIZE, true);
  // Each that begins ends, also the one that nobody read: else the status would tell of it for ever.
  let running = false;
  for (const { bytes, isOver } of steps) {
    if (bytes === 0 && !isOver) assertEquals(running, false);
    running = !isOver;
  }
  assertEquals(running, false);
  assertEquals(steps.filter(({ isOver }) => isOver).length, 2);
});
