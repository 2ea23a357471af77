/** An image server behind a link that is slow, but never silent for long. */
import { join } from "node:path";
import type { Lab } from "./lab.ts";
import { type HttpStub, httpStub, until } from "./stubs.ts";

/** Between two pieces: less than what a download may be without data. */
const PAUSE_MS = 50_000;

/** An image, and how it is served. */
interface SlowImage {
  readonly image: Uint8Array<ArrayBuffer>;
  /** What the pauses take all in all, of the lab's time, in which its limits run. */
  readonly ms: number;
  /** Is the image being written? The first piece is there before, the others are not. */
  readonly isWriting: () => boolean | Promise<boolean>;
}

/** Serves an image as `/i.img`, piece by piece. */
export function slowImages(lab: Lab, { image, ms, isWriting }: SlowImage): HttpStub {
  const pieceBytes = Math.ceil(image.length / (Math.ceil(ms / PAUSE_MS) + 1));
  let isPause = false;
  lab.hang = () => isPause;
  return httpStub(({ path }) => {
    if (path !== "/i.img") return new Response(null, { status: 404 });
    let sent = 0;
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        if (sent > 0) {
          // Otherwise the time would seem to pass before a piece that is still on its way.
          await until(async () => await arrivedBytes(lab) === sent && await isWriting());
          isPause = true;
          await lab.clock.limits.sleep(PAUSE_MS);
          isPause = false;
        }
        controller.enqueue(image.subarray(sent, sent + pieceBytes));
        sent += pieceBytes;
        if (sent >= image.length) controller.close();
      },
    }, { highWaterMark: 0 });
    return new Response(body, { headers: { "content-length": String(image.length) } });
  });
}

/** How much of the image is in the job's folder. */
async function arrivedBytes(lab: Lab): Promise<number> {
  for await (const { name } of Deno.readDir(lab.cwd)) {
    if (name.startsWith(".image-")) return (await Deno.stat(join(lab.cwd, name, "image"))).size;
  }
  return 0;
}
