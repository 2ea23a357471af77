import { catchSignals } from "./lib/agent/signals.ts";

// First of all, before anything else is loaded: until then SIGUSR1 would kill the process.
const signals = catchSignals();

const { endOnError, ownOutput } = await import("./lib/cli/process_io.ts");
const io = { ...ownOutput(), signals };
const end = endOnError(io);
try {
  const { main } = await import("./lib/cli/main.ts");
  Deno.exit(await main(Deno.args, io));
} catch (error) {
  end(error);
}
