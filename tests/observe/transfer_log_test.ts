import { assertEquals } from "@std/assert";
import { createTransferLog } from "../../lib/observe/transfer_log.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { recordingLog } from "../support/recording_log.ts";

Deno.test("the log says nothing of a transfer that takes less than 30 s, however large", async () => {
  const [clock, log] = [new FakeClock(), recordingLog()];
  const { transfer } = createTransferLog({ clock, log });
  const task = { what: "Fetching the attachments", jobId: "j", total: 900e6 };
  for (let second = 0; second < 29; second += 7) {
    transfer({ ...task, bytes: second * 30e6, isOver: false });
    await clock.advance(7000);
  }
  transfer({ ...task, bytes: 900e6, isOver: true });
  assertEquals(log.lines, []);
});

Deno.test("the log says every 30 s how far a slow transfer has come, and that it is over", async () => {
  const [clock, log] = [new FakeClock(), recordingLog()];
  const { transfer } = createTransferLog({ clock, log });
  const task = { what: "Fetching the attachments", jobId: "j", total: 100e6 };
  const other = { what: "Uploading the artifacts", jobId: "earlier", bytes: 1, isOver: false };
  for (let second = 0; second <= 70; second += 10) {
    transfer({ ...task, bytes: second * 1e6, isOver: false });
    if (second > 60) transfer(other);
    await clock.advance(second === 70 ? 1_000 : 10_000);
  }
  transfer({ ...task, bytes: 71e6, isOver: true });
  transfer({ ...other, isOver: true });
  assertEquals(log.lines.map(({ level, message, fields }) => [level, message, fields?.job_id]), [
    ["info", "Fetching the attachments: 30 % of 100.0 MB, 1.0 MB/s, 70 s left", "j"],
    ["info", "Fetching the attachments: 60 % of 100.0 MB, 1.0 MB/s, 40 s left", "j"],
    ["info", "Fetching the attachments: over after 1 min 11 s, 71.0 MB", "j"],
  ]);
});
