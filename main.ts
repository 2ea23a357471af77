import { catchSignals } from "./lib/host/signals.ts";

// First of all, before anything else is loaded: until then SIGUSR1 would kill the process.
const signals = catchSignals();

const { endOnError, ownOutput } = await import("./lib/cli/process_io.ts");
const output = ownOutput();
const uncaught = endOnError(output);
const io = { ...output, signals, onUncaught: uncaught.handOver };
try {
  const { main } = await import("./lib/cli/main.ts");
  Deno.exit(await main(Deno.args, io));
} catch (error) {
  uncaught.end(error);
}
