import { assertEquals } from "@std/assert";
import { createLineStream } from "../../lib/observe/line_stream.ts";
import { settle } from "../support/fake_clock.ts";

/** A stream that takes bytes only when a test reads. */
function unreadStream() {
  let text = "";
  let waiting: (() => void) | undefined;
  return {
    write: async (bytes: Uint8Array) => {
      await new Promise<void>((resolve) => waiting = resolve);
      text += new TextDecoder().decode(bytes);
      return bytes.length;
    },
    read: async () => {
      waiting?.();
      await settle();
      return text;
    },
  };
}

Deno.test("lines go out in order, those of one moment together", async () => {
  const stream = unreadStream();
  const lines = createLineStream(stream);
  lines.write("one");
  lines.write("two");
  await settle();
  assertEquals(await stream.read(), "one\ntwo\n");
  lines.write("three");
  await settle();
  assertEquals(await stream.read(), "one\ntwo\nthree\n");
  await lines.close();
});

Deno.test("lines that are not read are dropped, and one line says how many", async () => {
  const stream = unreadStream();
  const lines = createLineStream(stream);
  lines.write("first");
  await settle();
  for (let n = 0; n < 1500; n++) lines.write(`line ${n}`);
  await stream.read();
  const text = (await stream.read()).split("\n");
  assertEquals([text[1], text[1000]], ["line 0", "line 999"]);
  assertEquals(text.slice(1001), ["(500 lines are left out here: they were not read in time)", ""]);
  await lines.close();
});

Deno.test("a stream that is closed at the other end swallows what is written", async () => {
  const lines = createLineStream({ write: () => Promise.reject(new Error("Broken pipe")) });
  lines.write("one");
  await settle();
  lines.write("two");
  await lines.close();
});
