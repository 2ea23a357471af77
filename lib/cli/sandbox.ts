/** `testflinger-agent sandbox`: a Testflinger server in memory. */
import { USAGE_STATUS } from "./command.ts";
import type { Command } from "./command.ts";

const DEFAULT_PORT = "5000";

export const sandboxCommand: Command = {
  name: "sandbox",
  summary:
    "Runs a Testflinger server in memory, for trying things out; it forgets everything when it ends.",
  positionals: { least: 0, most: 0 },
  flags: [
    { name: "port", value: "N", help: `port to listen on, 0 for any (default: ${DEFAULT_PORT})` },
    { name: "host", value: "ADDRESS", help: "address to listen on (default: 127.0.0.1)" },
    { name: "legacy", help: "behave like a server of the older generation" },
    { name: "mode", help: "store what administrators set in a separate field 'mode'" },
    { name: "tokens", help: "require tokens, as servers with authentication do" },
  ],
  examples: [
    { line: "testflinger-agent sandbox", does: "serve on http://127.0.0.1:5000" },
    { line: "testflinger-agent sandbox --port 8000 --tokens", does: "with authentication" },
  ],
  async run(line, io) {
    const port = Number(line.values.port ?? DEFAULT_PORT);
    if (!Number.isInteger(port) || port < 0 || port > 65535) {
      io.stderr(`--port must be a number from 0 to 65535: ${line.values.port}\n`);
      return USAGE_STATUS;
    }
    const stop = new AbortController();
    io.signals.listen({ restart() {}, stop: () => stop.abort() });
    const { runSandbox } = await import("../sandbox/serve.ts");
    try {
      await runSandbox({
        port,
        hostname: line.values.host ?? "127.0.0.1",
        legacy: line.switches.has("legacy"),
        mode: line.switches.has("mode"),
        tokens: line.switches.has("tokens"),
        print: (text) => io.stdout(`${text}\n`),
        signal: stop.signal,
      });
      return 0;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      io.stderr(`The sandbox cannot listen on port ${port}: ${reason}; choose another --port\n`);
      return 1;
    }
  },
};
