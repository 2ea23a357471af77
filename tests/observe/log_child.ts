// Logs through a file system that gets full and has room again. Started by agent_log_test.ts, which has
// the shell ignore SIGXFSZ, so that the limit on the size of files shows as an error of write(2).
import { systemClock } from "../../lib/clock.ts";
import { emitterOf } from "../../lib/observe/events.ts";
import { createLog, createLogLines } from "../../lib/observe/agent_log.ts";

const folder = Deno.args[0] ?? "";

async function limitFileSize(limit: string) {
  const args = ["--pid", String(Deno.pid), `--fsize=${limit}:unlimited`];
  const { success } = await new Deno.Command("prlimit", { args }).output();
  if (!success) throw new Error("prlimit failed");
}

const { sink, close } = createLogLines({
  quiet: true,
  folder,
  format: "text",
  agentId: "agent-1",
  console: { write: (line) => console.error(line), isJournal: false, isShared: false },
});
const log = createLog({ emit: emitterOf("agent-1", { clock: systemClock, sink }), level: "INFO" });
log.info("before");
await limitFileSize("64");
for (let n = 0; n < 3; n++) log.info(`while the disk is full ${n} ${"x".repeat(100)}`);
await limitFileSize("unlimited");
log.info("after");
close();
