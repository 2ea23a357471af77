/**
 * A process of its own in which garbage can be collected on demand: each call meets an answer that
 * stands still after its first bytes, and garbage is collected while it is waited for. Prints what
 * became of the calls as JSON, and does not end when one of them hangs.
 */
import type { ServerApi } from "../../../lib/server/api.ts";
import { connect, JOB_ID, serveRaw, until, write } from "./http.ts";

declare function gc(): void; // --v8-flags=--expose-gc

const CALLS: Record<string, (server: ServerApi, signal: AbortSignal) => Promise<unknown>> = {
  nextJob: (server, signal) => server.nextJob(["q"], { signal }),
  getAgent: (server, signal) => server.getAgent(signal),
  getJobState: (server, signal) => server.getJobState(JOB_ID, signal),
  getStatuses: (server, signal) => server.getStatuses(JOB_ID, signal),
  viewResult: (server, signal) => server.viewResult(JOB_ID, signal),
  postResult: (server, signal) => server.postResult(JOB_ID, { job_state: "test" }, signal),
  attachments: async (server, signal) => {
    const answer = await server.getAttachments(JOB_ID, signal);
    if (!answer.ok || answer.value === null) return answer;
    const reader = answer.value.stream.getReader();
    while (!(await reader.read()).done);
  },
};

/** In turns, so that everything that was let go of is gone. */
async function collect(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const outcomes: Record<string, string> = {};
for (const [name, call] of Object.entries(CALLS)) {
  for (const end of ["aborted", "time limit"]) {
    let begun = false;
    await using server = serveRaw(async (connection) => {
      await write(connection, 'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"name": "rp');
      begun = true;
    });
    using link = connect(server);
    const controller = new AbortController();
    const settled = call(link.client, controller.signal).then(
      (answer) => (answer as { kind?: string }).kind ?? "ok", // every call gives an Answer
      (error) => `threw ${error.message.replace(/.*: /, "")}`,
    );
    await until(() => begun);
    const looks = link.clock.looks;
    await until(() => link.clock.looks > looks || link.clock.sleepers > 0);
    await collect();
    if (end === "aborted") controller.abort(new Error("stop"));
    else await link.clock.advance(3_600_000);
    outcomes[`${name} ${end}`] = await settled;
  }
}
console.log(JSON.stringify(outcomes));
