/** `submit`, `results`, `artifacts` and `cancel`: jobs on a server, from the side of who submits them. */
import { type Command, FORMAT_FLAG } from "./command.ts";
import { SERVER_FLAGS } from "./lab/lab_server.ts";

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
