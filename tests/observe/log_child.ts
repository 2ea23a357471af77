// Logs through a file system that gets full and has room again. Started by log_test.ts, which has
// the shell ignore SIGXFSZ, so that the limit on the size of files shows as an error of write(2).
import { createAgentLog } from "../../lib/observe/log.ts";

const folder = Deno.args[0] ?? "";

async function limitFileSize(limit: string) {
  const args = ["--pid", String(Deno.pid), `--fsize=${limit}:unlimited`];
  const { success } = await new Deno.Command("prlimit", { args }).output();
  if (!success) throw new Error("prlimit failed");
}

const { log, close } = await createAgentLog({
  level: "INFO",
  quiet: true,
  folder,
  format: "text",
  agentId: "agent-1",
  underSystemd: false,
});
log.info("before");
await limitFileSize("64");
for (let n = 0; n < 3; n++) log.info(`while the disk is full ${n} ${"x".repeat(100)}`);
await limitFileSize("unlimited");
log.info("after");
await close();
