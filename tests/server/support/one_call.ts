/**
 * A process of its own with an environment of its own, which certificates and proxies come from:
 * makes one call and prints the answer and the log as JSON.
 */
import { systemClock } from "../../../lib/clock.ts";
import { createServerClient } from "../../../lib/server/client.ts";
import { recordingLog } from "../../support/recording_log.ts";
import { JOB_ID } from "./http.ts";

const [address = "", call = ""] = Deno.args;
const log = recordingLog();
const client = createServerClient({ address, agentId: "rpi4-01", clock: systemClock, log });
const answer = call === "artifact"
  ? await client.postArtifact(JOB_ID, { open: () => new Blob(["the archive"]).stream() })
  : await client.getAgent();
console.log(JSON.stringify({ answer, log: log.lines }));
client.close();
