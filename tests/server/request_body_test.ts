import { assertEquals } from "@std/assert";
import { Outgoing } from "../../lib/server/request_body.ts";

Deno.test("a connection that is lost while the source is being read is no fault of the source", async () => {
  const gate = Promise.withResolvers<void>();
  const source = new ReadableStream<Uint8Array>({
    async pull(controller) {
      await gate.promise;
      try {
        controller.enqueue(new Uint8Array(1));
      } catch {
        // Nobody takes it any more.
      }
    },
  });
  const outgoing = new Outgoing(source, () => {});
  const reader = outgoing.stream.getReader();
  const read = reader.read();
  const cancelled = reader.cancel();
  gate.resolve();
  await Promise.all([read, cancelled]);
  await outgoing.cancel();
  assertEquals(outgoing.fault, undefined);
  assertEquals(outgoing.sent, 0);
});
