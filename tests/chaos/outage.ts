/**
 * `deno task soak [--minutes N]`: the server goes away for N minutes while a job prints ten lines a
 * second. Afterwards every line must be there, and the agent's memory must not have grown.
 */
import { parseArgs } from "@std/cli/parse-args";
import { startBenchLab } from "../../bench/lab.ts";
import { sourceProgram } from "../../bench/program.ts";
import { serveSandbox } from "../../lib/sandbox/serve.ts";

const args = parseArgs(Deno.args, { string: ["minutes"] });
const minutes = Number(args.minutes ?? 10);
const lines = Math.round((minutes + 1) * 600);
/** What may come and go with garbage collection. */
const FLAT_MIB = 25;

await using lab = await startBenchLab({
  program: sourceProgram(),
  config: {
    polling_interval: 1,
    global_timeout: 86_400,
    test_command:
      `i=0; while [ $i -lt ${lines} ]; do i=$((i + 1)); echo "line $i"; sleep 0.1; done`,
  },
});
const { sandbox } = lab.served;
const port = Number(new URL(lab.served.url).port);
const jobId = sandbox.submit({
  job_queue: "bench",
  output_timeout: 86_400,
  test_data: { test_cmds: "x" },
});
await sandbox.waitFor(() => sandbox.log(jobId, "output", "test").includes("line 100\n"));
const before = await lab.memory();
await lab.served.close();
console.log(`the server is away, the agent holds ${before.toFixed(0)} MiB`);
const held: number[] = [];
for (let minute = 0; minute < minutes; minute++) {
  await new Promise((resolve) => setTimeout(resolve, 60_000));
  held.push(Math.round(await lab.memory()));
}
const again = serveSandbox({ port, sandbox });
await sandbox.waitFor(() => sandbox.state(jobId) === "complete");
const log = sandbox.log(jobId, "output", "test").split("\n").slice(3).join("\n");
const expected = Array.from({ length: lines }, (_, i) => `line ${i + 1}\n`).join("");
const most = Math.max(...held);
console.log(`memory by the minute in MiB: ${held.join(" ")}`);
console.log(`${lines} lines printed; the log is ${log === expected ? "whole" : "NOT WHOLE"}`);
console.log(
  `${sandbox.fragments(jobId, "output").length} fragments, memory grew by ${
    Math.round(most - before)
  } MiB`,
);
await again.close();
const ok = log === expected && most - before < FLAT_MIB;
console.log(ok ? "1 passed, 0 failed" : "0 passed, 1 failed");
// Not Deno.exit(): the agent is still to be ended.
Deno.exitCode = ok ? 0 : 1;
