/**
 * `try`, `sandbox`, `submit`, `results`, `artifacts` and `cancel`: jobs from the side of who submits them.
 */
import { messageOf } from "../message.ts";
import { type Command, FORMAT_FLAG, USAGE_STATUS } from "./command.ts";
import { SERVER_FLAGS } from "./lab/lab_server.ts";

/** `testflinger-agent try`. */
export const tryCommand: Command = {
  name: "try",
  summary: "Runs one job on this machine, without a server, and shows the result.",
  operands: "JOB.yaml",
  positionals: { least: 1, most: 1 },
  flags: [{
    name: "config",
    short: "c",
    value: "FILE",
    help: "take the phase commands from this agent's configuration (default: tests run here)",
  }, {
    name: "verbose",
    short: "v",
    help: "show what the agent logs, too",
  }],
  examples: [
    { line: "testflinger-agent try job.yaml", does: "run the tests of job.yaml on this machine" },
    { line: "testflinger-agent try job.yaml -c rpi4.conf", does: "with the phases of an agent" },
  ],
  async run(line, io) {
    const { runTry } = await import("./try/run_try.ts");
    return await runTry(line, io);
  },
};

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
      const hostname = line.values.host ?? "127.0.0.1";
      const isPort = error instanceof Deno.errors.AddrInUse ||
        error instanceof Deno.errors.PermissionDenied;
      io.stderr(
        `The sandbox cannot listen on port ${port} of ${hostname}: ${messageOf(error)}; ` +
          `choose another ${isPort ? "--port" : "--host, an address of this machine"}\n`,
      );
      return 1;
    }
  },
};

const ONE_JOB = { operands: "JOB_ID", positionals: { least: 1, most: 1 } } as const;
const EXAMPLE_ID = "4b1e7c0e-8f0d-4c5e-9a55-6a1c5f0f3b21";

/** `testflinger-agent submit JOB.yaml`. */
export const submitCommand: Command = {
  name: "submit",
  summary: "Submits a job with its attachments to a server, and prints its id.",
  operands: "JOB.yaml",
  positionals: { least: 1, most: 1 },
  flags: [
    ...SERVER_FLAGS,
    { name: "queue", value: "NAME", help: "queue to use instead of the job's job_queue" },
    { name: "wait", help: "show the log live; the exit status is the job's result, 0 or 1" },
  ],
  examples: [
    {
      line: "testflinger-agent submit job.yaml --wait",
      does: "to the sandbox on this machine; the exit status is the job's",
    },
    {
      line: "testflinger-agent submit job.yaml --server https://testflinger.example.com",
      does: "to a lab",
    },
  ],
  async run(line, io) {
    const { submit } = await import("./lab/run_lab.ts");
    return await submit(line, io);
  },
};

/** `testflinger-agent results JOB_ID`. */
export const resultsCommand: Command = {
  name: "results",
  summary: "Shows how the phases of a job on a server ended.",
  ...ONE_JOB,
  flags: [...SERVER_FLAGS, { name: "log", help: "print its log, too" }, FORMAT_FLAG],
  examples: [{ line: `testflinger-agent results ${EXAMPLE_ID} --log`, does: "with its log" }],
  async run(line, io) {
    const { results } = await import("./lab/run_lab.ts");
    return await results(line, io);
  },
};

/** `testflinger-agent artifacts JOB_ID`. */
export const artifactsCommand: Command = {
  name: "artifacts",
  summary: "Fetches the artifacts of a job on a server into ./artifacts-JOB_ID/.",
  ...ONE_JOB,
  flags: [...SERVER_FLAGS],
  examples: [{ line: `testflinger-agent artifacts ${EXAMPLE_ID}`, does: "from the sandbox" }],
  async run(line, io) {
    const { artifacts } = await import("./lab/run_lab.ts");
    return await artifacts(line, io);
  },
};

/** `testflinger-agent cancel JOB_ID`. */
export const cancelCommand: Command = {
  name: "cancel",
  summary: "Cancels a job on a server; its cleanup runs.",
  ...ONE_JOB,
  flags: [...SERVER_FLAGS],
  examples: [{ line: `testflinger-agent cancel ${EXAMPLE_ID}`, does: "end it" }],
  async run(line, io) {
    const { cancel } = await import("./lab/run_lab.ts");
    return await cancel(line, io);
  },
};
