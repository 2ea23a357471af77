/** Reads an image through a cache, as one job does, and prints how many milliseconds that took. */
import { openArriving } from "../connectors/support/image/arriving.ts";
import { ImageCache } from "../connectors/support/image/cache.ts";
import { contextFor } from "./board.ts";

const [url = "", folder = ""] = Deno.args;
const opened = await ImageCache.open(folder, { maxBytes: 1e12, minFreeBytes: 0 });
if (!opened.ok) throw new Error(opened.why);
const { ctx } = contextFor("/tmp", { env: {}, user: "nobody", port: 22 });
const begun = performance.now();
await using image = await openArriving(ctx, { url }, opened.cache);
for await (const _ of image.stream()) { /* What is done with it is measured elsewhere. */ }
console.log(performance.now() - begun);
