import { assert } from "@std/assert";
import fc from "fast-check";
import type { Answer, ServerApi } from "../../lib/server/api.ts";
import { createServerClient } from "../../lib/server/client.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { recordingLog } from "../support/recording_log.ts";
import { TempFolder } from "../support/temp_folder.ts";
import { anyBytes, mutated, oddJson } from "./inputs.ts";
import type { FuzzTarget, OpenTarget } from "./target.ts";

const JOB_ID = "11111111-2222-4333-8444-555555555555";
const REFRESH_TOKEN = "refresh-token-sesame";
const ACCESS_TOKEN = "access-token-sesame";
/** Where it stands in an answer, the server repeats the token that the request carried. */
const ECHO = "ECHO";
/** Where it stands in the answer to a refresh, the server gives out the access token. */
const ISSUED = "ISSUED";

const WORDS = [
  ...["job_state", "test_output", "test_serial", "status", "message", "detail", "access_token"],
  ...["expires_in", "state", "comment", "restricted_to", "queues", "updated_at", "$date"],
  ...["job_id", JOB_ID, "Agent not identified", "cancelled", ECHO],
];

const VALID = JSON.stringify({
  job_id: JOB_ID,
  job_state: "cancelled",
  test_output: "a\\u00e4\n",
  state: "offline",
  restricted_to: { q: ["me"], r: null },
  access_token: ISSUED,
  expires_in: 30,
});

const reply = fc.record({
  status: fc.constantFrom(
    200,
    200,
    200,
    200,
    204,
    302,
    307,
    400,
    401,
    403,
    404,
    413,
    422,
    429,
    503,
  ),
  body: fc.oneof(
    anyBytes,
    mutated(VALID),
    oddJson(WORDS).map((value) => JSON.stringify(value)),
    fc.constantFrom(VALID, "", "<html>", "Testflinger Server", "null"),
  ),
  type: fc.constantFrom("application/json", "text/html", "", "x/y; charset=z"),
  headers: fc.array(
    fc.constantFrom<[string, string]>(
      ["Location", "/v1/"],
      ["Location", "//x:y"],
      ["Location", "javascript:1"],
      ["Retry-After", "-1"],
      ["Retry-After", "99999999999999999999"],
      ["Retry-After", "Mon, 99 Foo 0"],
      ["Set-Cookie", "agent_name=\u00e4; Max-Age=-1"],
      ["Set-Cookie", "agent_name=rpi4"],
    ),
    { maxLength: 2 },
  ),
});
type Reply = ReturnType<typeof reply.generate>["value"];

function holdsToken(text: string): boolean {
  return text.includes(REFRESH_TOKEN) || text.includes(ACCESS_TOKEN);
}

/** What is asked in each case; an answer of each must come, and no exception. */
const CALLS: Record<string, (server: ServerApi) => Promise<Answer<unknown>>> = {
  getAgent: (server) => server.getAgent(),
  nextJob: (server) => server.nextJob(["q"]),
  getJobState: (server) => server.getJobState(JOB_ID),
  getStatuses: (server) => server.getStatuses(JOB_ID),
  viewResult: (server) => server.viewResult(JOB_ID),
  postAgent: (server) => server.postAgent({ state: "waiting" }),
  postResult: (server) => server.postResult(JOB_ID, { job_state: "test" }),
  getAttachments: async (server) => {
    const answer = await server.getAttachments(JOB_ID);
    if (answer.ok) await answer.value?.stream.cancel();
    return answer;
  },
  postLog: (server) =>
    server.postLog(JOB_ID, "output", {
      fragment_number: 0,
      timestamp: "2026-01-01T00:00:00Z",
      phase: "test",
      log_data: "x",
    }),
};

/** Whatever a server answers, each call of the client ends in an answer of its own. */
export const serverAnswers: FuzzTarget = { name: "server's answers", open };

async function open(): Promise<OpenTarget> {
  const folder = new TempFolder();
  const tokenFile = folder.at("token");
  await Deno.writeTextFile(tokenFile, JSON.stringify({ refresh_token: REFRESH_TOKEN }));
  let replies: Reply[] = [];
  let next = 0;
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (request) => {
    const sent = `${request.headers.get("authorization")} ${await request.text()}`;
    const carried = [REFRESH_TOKEN, ACCESS_TOKEN].find((token) => sent.includes(token)) ?? ECHO;
    const { status, body, type, headers } = replies[next++ % replies.length]!;
    const issued = status === 200 && request.url.endsWith("/refresh") ? ACCESS_TOKEN : ISSUED;
    const filled = typeof body === "string"
      ? body.replaceAll(ECHO, carried).replaceAll(ISSUED, issued)
      : Uint8Array.from(body);
    return new Response(status === 204 ? null : filled, {
      status,
      headers: [["Content-Type", type], ...headers],
    });
  });
  const log = recordingLog();
  const newClient = (file: string) =>
    createServerClient({
      address: `http://127.0.0.1:${server.addr.port}`,
      agentId: "rpi4-01",
      tokenFile: file,
      clock: new FakeClock(),
      log,
    });
  const clients = { "with a token": newClient(tokenFile), "without": newClient(folder.at("none")) };
  let good = 0;
  const property = fc.asyncProperty(
    fc.constantFrom(...Object.keys(CALLS)),
    fc.constantFrom(...Object.values(clients)),
    fc.array(reply, { minLength: 1, maxLength: 3 }),
    async (call, client, list) => {
      [replies, next] = [list, 0];
      log.lines.length = 0;
      const answer = await CALLS[call]!(client);
      if (answer.ok) {
        good++;
      } else {
        assert(/^\P{Cc}+$/u.test(answer.message), JSON.stringify(answer.message));
        assert(!holdsToken(answer.message), answer.message);
        assert((answer.retryAfterMs ?? 0) >= 0 && (answer.retryAfterMs ?? 0) <= 3_600_000);
      }
      assert(!log.lines.some(({ message }) => holdsToken(message)));
      // A call never goes round in circles.
      assert(next <= 16, `${next} requests for one call`);
    },
  );
  return {
    property,
    checkVariety: () => assert(good > 0, "no answer was ever taken"),
    async [Symbol.asyncDispose]() {
      for (const client of Object.values(clients)) client.close();
      await server.shutdown();
      await folder[Symbol.asyncDispose]();
    },
  };
}
