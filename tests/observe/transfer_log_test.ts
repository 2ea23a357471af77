import { assertEquals } from "@std/assert";
import { emitterOf } from "../../lib/observe/events.ts";
import { createTransferLog } from "../../lib/observe/transfer_log.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { recordingLog } from "../support/recording_log.ts";

Deno.test("the log says nothing of a transfer that takes less than 30 s, however large", async () => {
  const [clock, log] = [new FakeClock(), recordingLog()];
  const emit = emitterOf("agent-1", { clock, sink: createTransferLog({ clock, log }) });
  const task = {
    type: "transfer" as const,
    what: "Fetching the attachments",
    job: "j",
    total: 900e6,
  };
  for (let second = 0; second < 29; second += 7) {
    emit({ ...task, bytes: second * 30e6, isOver: false });
    await clock.advance(7000);
  }
  emit({ ...task, bytes: 900e6, isOver: true });
  assertEquals(log.lines, []);
});

Deno.test("the log says every 30 s how far a slow transfer has come, and that it is over", async () => {
  const [clock, log] = [new FakeClock(), recordingLog()];
  const emit = emitterOf("agent-1", { clock, sink: createTransferLog({ clock, log }) });
  const task = {
    type: "transfer" as const,
    what: "Fetching the attachments",
    job: "j",
    total: 100e6,
  };
  const other = {
    type: "transfer" as const,
    what: "Uploading the artifacts",
    job: "earlier",
    bytes: 1,
    isOver: false,
  };
  for (let second = 0; second <= 70; second += 10) {
    emit({ ...task, bytes: second * 1e6, isOver: false });
    if (second > 60) emit(other);
    await clock.advance(second === 70 ? 1_000 : 10_000);
  }
  emit({ ...task, bytes: 71e6, isOver: true });
  emit({ ...other, isOver: true });
  assertEquals(log.lines.map(({ level, message, fields }) => [level, message, fields?.job_id]), [
    ["info", "Fetching the attachments: 30 % of 100.0 MB, 1.0 MB/s, 70 s left", "j"],
    ["info", "Fetching the attachments: 60 % of 100.0 MB, 1.0 MB/s, 40 s left", "j"],
    ["info", "Fetching the attachments: over after 1 min 11 s, 71.0 MB", "j"],
  ]);
});
