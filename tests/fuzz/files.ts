import { assert } from "@std/assert";
import fc from "fast-check";
import { crc32 } from "node:zlib";
import { readDeviceInfo, readStageFailure } from "../../lib/job/connector_files.ts";
import { releaseOf } from "../../lib/job/os_release.ts";
import { redactStrings } from "../../lib/job/secrets.ts";
import { Entry } from "../../lib/outbox/entries.ts";
import { readJournal } from "../../lib/outbox/journal.ts";
import {
  apply,
  deliveredBefore,
  emptyJobState,
  interruptedPhase,
  segmentAt,
  statusesOf,
} from "../../lib/outbox/job_state.ts";
import { compileSecrets } from "../../lib/process/redactor.ts";
import { TempFolder } from "../support/temp_folder.ts";
import { anyBytes, deepJson, mutated, oddJson, replaceIn } from "./inputs.ts";
import { type FuzzTarget, type OpenTarget, plainTarget } from "./target.ts";

const WORDS = [
  ...["t", "n", "log", "output", "serial", "phase", "test", "setup", "from", "to", "number", "at"],
  ...["message", "kind", "state", "event", "status", "how", "delivered", "after", "identity"],
];

const ENTRIES: unknown[] = [
  { t: "accepted", at: 1, jobId: "x", queue: "q", firstFragment: { output: 0, serial: 2 } },
  { t: "phase_started", phase: "test" },
  { t: "group", phase: "test", identity: { pid: 1, startTime: 2, bootId: "b" } },
  { t: "region", log: "output", phase: "test", from: 10 },
  { t: "fragment", log: "output", number: 3, phase: "test", from: 10, to: 20 },
  { t: "fragment_settled", log: "output", how: "refused", message: "no" },
  {
    t: "message",
    n: 7,
    message: { kind: "state", state: "test" },
    after: { output: 1, serial: 0 },
  },
  { t: "settled", n: 7, how: "delivered" },
  { t: "events_settled", count: 3, how: "delivered" },
  { t: "phase_ended", phase: "test", status: 256 },
  { t: "phase_ended", phase: "test", status: 1 },
  { t: "finished", at: 5 },
  { t: "baseline", bytes: { test_output: -5 } },
];

const json = fc.oneof(
  fc.constantFrom(...ENTRIES).map((entry) => JSON.stringify(entry)),
  fc.tuple(fc.constantFrom(...ENTRIES), oddJson(WORDS))
    .map(([entry, more]) => JSON.stringify({ ...Object(entry), ...Object(more) })),
  oddJson(WORDS).map((value) => JSON.stringify(value)),
);
/** Lines as a journal has them: with the right checksum, so that what is in them is looked at. */
const line = json.map((text) => {
  const sum = crc32(new TextEncoder().encode(text)).toString(16).padStart(8, "0");
  return `${sum} ${text}\n`;
});
const journal = fc.array(line, { maxLength: 8 }).map((lines) => lines.join(""));

/** Whatever is in a job's journal, it can be read, and where the job stands can be told. */
export const journals: FuzzTarget = plainTarget(
  "jobs' journals",
  fc.property(fc.oneof(anyBytes, journal, journal.chain(mutated)), (content) => {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    const { values, wholeBytes } = readJournal(bytes);
    assert(wholeBytes <= bytes.length);
    const state = emptyJobState();
    for (const value of values) {
      const entry = Entry.safeParse(value);
      if (entry.success) apply(state, entry.data);
    }
    interruptedPhase(state);
    for (const status of Object.values(statusesOf(state))) {
      assert(Number.isInteger(status) && status >= 0 && status <= 255, `${status}`);
    }
    segmentAt(state.logs.output, 15, 30);
    deliveredBefore(state.logs.output, "test", 15);
  }),
);

const FILE = JSON.stringify({
  device_info: { device_ip: "10.0.0.1", agent_name: "rpi4" },
  test_exception_info: {
    exception_name: "RecoveryError",
    exception_message: "no",
    exception_cause: "why",
  },
});
const FILE_WORDS = [
  ...["device_info", "device_ip", "test_exception_info", "exception_name", "exception_message"],
  ...["exception_cause", "valueOf", "sesame"],
];
const file = fc.oneof(
  { weight: 4, arbitrary: anyBytes },
  { weight: 8, arbitrary: mutated(FILE) },
  { weight: 16, arbitrary: oddJson(FILE_WORDS).map((value) => JSON.stringify(value)) },
  {
    weight: 16,
    arbitrary: fc.record({
      device_info: oddJson(FILE_WORDS),
      test_exception_info: fc.record({
        exception_name: oddJson(FILE_WORDS),
        exception_message: oddJson(FILE_WORDS),
        exception_cause: oddJson(FILE_WORDS),
      }, { requiredKeys: [] }),
    }).map((value) => JSON.stringify(value)),
  },
  { weight: 1, arbitrary: deepJson.map((deep) => `{"device_info":{"a":${deep}}}`) },
);

/** Whatever a job leaves in the files of its device connector, nothing of it is an accident. */
export const connectorFiles: FuzzTarget = { name: "device connectors' files", open };

function open(): OpenTarget {
  const folder = new TempFolder();
  const secrets = compileSecrets(["sesame"]);
  // Both files are one.
  const target = Deno.openSync(folder.at("device-info.json"), { write: true, create: true });
  Deno.linkSync(folder.at("device-info.json"), folder.at("device-connector-error.json"));
  let said = 0;
  return {
    property: fc.property(file, (content) => {
      const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
      replaceIn(target, bytes);
      const info = readDeviceInfo(folder.path);
      const failure = readStageFailure(folder.path, "test");
      if (failure !== "") said++;
      if (info !== undefined) {
        said++;
        assert(!JSON.stringify(redactStrings(info, secrets)).includes("sesame"));
      }
      releaseOf(new TextDecoder().decode(bytes));
    }),
    checkVariety: () => assert(said > 0, "no file ever said anything"),
    [Symbol.asyncDispose]: () => {
      target.close();
      return folder[Symbol.asyncDispose]();
    },
  };
}
