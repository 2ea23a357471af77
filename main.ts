import { catchSignals } from "./lib/agent/signals.ts";

// First of all, before anything else is loaded: until then SIGUSR1 would kill the process.
const signals = catchSignals();

const { main } = await import("./lib/cli/main.ts");
const output = new TextEncoder();
const status = await main(Deno.args, {
  stdout: (text) => void Deno.stdout.writeSync(output.encode(text)),
  stderr: (text) => void Deno.stderr.writeSync(output.encode(text)),
  signals,
});
Deno.exit(status);
