import { assertEquals } from "@std/assert";
import { Outbox } from "../../lib/outbox/outbox.ts";
import { recordingLog } from "../support/recording_log.ts";

Deno.test("who waits for entries alone is not woken when there is more of a log", async () => {
  const folder = await Deno.makeTempDir();
  try {
    using outbox = Outbox.open(folder, recordingLog()).outbox;
    await outbox.appendLog("output", "test", new TextEncoder().encode("begins\n"));
    const woken: string[] = [];
    const waits = [
      outbox.changed().then(() => woken.push("entries")),
      outbox.changed(undefined, { ofLogs: true }).then(() => woken.push("logs")),
    ];
    await outbox.appendLog("output", "test", new TextEncoder().encode("goes on\n"));
    await waits[1];
    assertEquals(woken, ["logs"]);
    outbox.append({ t: "cancelled" });
    await Promise.all(waits);
    assertEquals(woken, ["logs", "entries"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
