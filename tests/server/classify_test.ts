import { assertEquals, assertFalse, assertStringIncludes } from "@std/assert";
import type { Failure, ServerApi } from "../../lib/server/api.ts";
import { isFinal } from "../../lib/server/api.ts";
import {
  connect,
  failed,
  JOB_ID,
  json,
  type Reply,
  serve,
  serveRaw,
  succeeded,
  write,
} from "./support/http.ts";

const PAGE = "<!DOCTYPE html>\n<html><body><h1>Welcome to the captive portal</h1></body></html>";

function page(status: number, type = "text/html; charset=utf-8"): Response {
  return new Response(PAGE, { status, headers: { "Content-Type": type } });
}

const EVENTS = { agent_id: "a", job_queue: "q", job_status_webhook: "http://w", events: [] };
const FRAGMENT = {
  fragment_number: 0,
  timestamp: "2026-01-01T00:00:00+00:00",
  phase: "test",
  log_data: "x",
} as const;

/** Every call that carries something that must not be lost, and every question. */
const CALLS: Record<string, (server: ServerApi) => Promise<{ ok: true } | Failure>> = {
  postAgent: (server) => server.postAgent({ state: "waiting" }),
  postQueues: (server) => server.postQueues({ q: "" }),
  postResult: (server) => server.postResult(JOB_ID, { job_state: "complete" }),
  postLog: (server) => server.postLog(JOB_ID, "output", FRAGMENT),
  postProvisionLog: (server) =>
    server.postProvisionLog({ job_id: JOB_ID, exit_code: 0, detail: "" }),
  postArtifact: (server) =>
    server.postArtifact(JOB_ID, { open: () => new Blob(["archive"]).stream() }),
  postEvents: (server) => server.postEvents(JOB_ID, EVENTS),
  getAgent: (server) => server.getAgent(),
  nextJob: (server) => server.nextJob(["q"]),
  getJobState: (server) => server.getJobState(JOB_ID),
  getStatuses: (server) => server.getStatuses(JOB_ID),
  viewResult: (server) => server.viewResult(JOB_ID),
  getAttachments: (server) => server.getAttachments(JOB_ID),
};

for (const status of [200, 203, 302, 400, 401, 403, 404, 405, 410, 413, 422, 451, 500, 502, 511]) {
  Deno.test(`a web page with status ${status} in the server's place is an outage for every call`, async () => {
    await using server = serve(() => page(status));
    for (const [name, call] of Object.entries(CALLS)) {
      const contacts: (boolean | undefined)[] = [];
      using link = connect({ ...server, onAnswer: (ok) => contacts.push(ok) });
      const failure = failed(await call(link.client));
      assertEquals([failure.kind, failure.status], ["foreign", status], name);
      assertFalse(isFinal(failure));
      assertStringIncludes(failure.message, "HTML");
      assertFalse(contacts.includes(true), name);
      assertEquals(link.client.generation, undefined);
    }
  });
}

Deno.test("what tells a page is what it holds, not what it is labelled as", async () => {
  let reply: () => Reply = () => page(200, "application/json");
  await using server = serve(() => reply());
  using link = connect(server);
  assertEquals(failed(await link.client.postQueues({})).kind, "foreign");
  // The real server labels its own words as HTML.
  reply = () => new Response("OK", { headers: { "Content-Type": "text/html; charset=utf-8" } });
  succeeded(await link.client.postQueues({}));
});

Deno.test("each kind of status is told apart, with the server's message on one line", async () => {
  let reply = () => new Response();
  await using server = serve(() => reply());
  using link = connect(server);
  const url = `POST ${server.address}/v1/agents/data/rpi4-01`;
  const cases: [Response, string, string][] = [
    [json({ message: "Too many" }, { status: 429 }), "busy", "429 Too Many Requests: Too many"],
    [
      json({ message: "a\r\n\u001b[31mb\u2028c" }, { status: 500 }),
      "busy",
      "500 Internal Server Error: a [31mb c",
    ],
    [page(502), "foreign", "502 Bad Gateway: answered HTML, not JSON"],
    [
      new Response("x".repeat(9000), { status: 503 }),
      "busy",
      `503 Service Unavailable: ${"x".repeat(200)}...`,
    ],
    [new Response(null, { status: 504 }), "busy", "504 Gateway Timeout"],
    [new Response(null, { status: 408 }), "busy", "408 Request Timeout"],
    [
      json({ message: "Specified action requires role: agent" }, { status: 403 }),
      "forbidden",
      "403 Forbidden: Specified action requires role: agent (sent without a token: no token file is configured)",
    ],
    [
      json({ message: "Validation error", detail: { json: { x: ["Unknown field."] } } }, {
        status: 422,
      }),
      "refused",
      '422 Unprocessable Entity: Validation error {"json":{"x":["Unknown field."]}}',
    ],
    [json({ message: "too big" }, { status: 413 }), "refused", "413 Payload Too Large: too big"],
    [json({ message: "no" }, { status: 400 }), "refused", "400 Bad Request: no"],
    [new Response("no", { status: 400 }), "foreign", "400 Bad Request: no"],
    [new Response(null, { status: 422 }), "foreign", "422 Unprocessable Entity"],
    [new Response("no", { status: 403 }), "foreign", "403 Forbidden: no"],
    [
      json({ message: "no" }, { status: 401 }),
      "unauthorised",
      "401 Unauthorized: no (sent without a token: no token file is configured)",
    ],
    [new Response("gone", { status: 410 }), "missing", "410 Gone: gone"],
    [json({ message: "?" }, { status: 409 }), "foreign", "409 Conflict: ?"],
    [new Response(null, { status: 304 }), "foreign", "304 Not Modified"],
  ];
  for (const [response, kind, message] of cases) {
    reply = () => response;
    const failure = failed(await link.client.postAgent({ state: "waiting" }));
    assertEquals([failure.kind, failure.message], [kind, `${url}: ${message}`]);
  }
});

Deno.test("nothing but the server's own no to this very body, as JSON, is final", async () => {
  let status = 0;
  await using server = serve(() => json({ message: "no" }, { status }));
  using link = connect(server);
  for (status = 400; status < 600; status++) {
    const { kind } = failed(await link.client.postQueues({}));
    assertEquals(kind === "refused", [400, 413, 422].includes(status), `${status} is ${kind}`);
    assertFalse(kind === "forgotten");
  }
});

Deno.test("an answer that is cut off in the middle of a no is no answer", async () => {
  await using server = serveRaw(async (connection) => {
    const body = '{"message": "Validat';
    await write(connection, `HTTP/1.1 422 No\r\nContent-Length: 90\r\n\r\n${body}`);
    connection.closeWrite();
  });
  using link = connect(server);
  assertEquals(failed(await link.client.postQueues({})).kind, "unreachable");
});

Deno.test("a post has succeeded when the server says OK, says something in JSON, or says nothing", async () => {
  const replies: (() => Reply)[] = [
    () => "OK",
    () => "OK\n",
    () => '"OK"',
    () => json({ status: "OK" }),
    () => json([]),
    () => "",
    () => new Response(null, { status: 204 }),
  ];
  let reply = replies[0]!;
  await using server = serve(() => reply());
  using link = connect(server);
  for (reply of replies) succeeded(await link.client.postResult(JOB_ID, { job_state: "test" }));
  assertEquals(server.seen.length, replies.length);
});

Deno.test("other words are taken for success only from a server that greets as Testflinger", async () => {
  let greeting = "It works!";
  await using server = serve(({ method }) => method === "GET" ? greeting : "Hello, world");
  using link = connect(server);
  const failure = failed(await link.client.postResult(JOB_ID, { job_state: "test" }));
  assertEquals(failure.kind, "foreign");
  assertStringIncludes(failure.message, "neither OK nor JSON");
  greeting = "Testflinger Server v9";
  succeeded(await link.client.postResult(JOB_ID, { job_state: "test" }));
});

Deno.test("a webhook's answer that the server hands on is its own trouble; an outage is not", async () => {
  let reply: () => Reply = () => "";
  let greeting: () => Reply = () => "Testflinger Server v1";
  await using server = serve(({ path }) => path === "/v1/" ? greeting() : reply());
  using link = connect(server);
  const answers: [() => Reply, string][] = [
    [() => json({ message: "Webhook URL not configured" }, { status: 500 }), "webhook"],
    [() => json({ message: "Webhook unreachable" }, { status: 502 }), "webhook"],
    [() => json({ message: "Webhook Timeout" }, { status: 504 }), "webhook"],
    [
      () => json({ message: "Invalid job_status_webhook URL specified" }, { status: 403 }),
      "webhook",
    ],
    [() => page(404), "webhook"],
    [() => page(200), "done"],
    [() => "anything", "done"],
    [
      () => json({ message: "Specified action requires role: agent" }, { status: 403 }),
      "forbidden",
    ],
  ];
  for (const [one, kind] of answers) {
    reply = one;
    const answer = await link.client.postEvents(JOB_ID, EVENTS);
    assertEquals(answer.ok ? "done" : answer.kind, kind);
  }
  greeting = () => page(200);
  for (const one of [() => page(404), () => page(200), () => new Response(null, { status: 502 })]) {
    reply = one;
    const { kind } = failed(await link.client.postEvents(JOB_ID, EVENTS));
    assertEquals(kind === "webhook" || isFinal({ kind, ok: false, message: "" }), false, kind);
  }
});

Deno.test("something that speaks for a dead server is no contact with it, a failed webhook is none lost", async () => {
  let reply = () => new Response(null, { status: 502 });
  await using server = serve(() => reply());
  const contacts: boolean[] = [];
  using link = connect({ ...server, onAnswer: (ok) => contacts.push(ok) });
  await link.client.postQueues({});
  await link.client.postEvents(JOB_ID, EVENTS);
  reply = () => page(404);
  await link.client.postQueues({});
  reply = () => json({ message: "no" }, { status: 422 });
  await link.client.postQueues({});
  // The second false is the question who answers.
  assertEquals(contacts, [false, false, false, true]);
});

Deno.test("a forgotten agent is told apart from a gateway that knows nothing", async () => {
  let reply = () => json({}, { status: 404 });
  await using server = serve(() => reply());
  using link = connect(server);
  assertEquals(await link.client.getAgent(), { ok: true, value: null });
  reply = () => new Response("default backend - 404", { status: 404 });
  assertEquals(failed(await link.client.getAgent()).kind, "missing");
  reply = () => page(404);
  assertEquals(failed(await link.client.getAgent()).kind, "foreign");
});

/** A server that may have forgotten a job, and whatever else. */
function forgetful() {
  const gone = () => json({ message: "Job not found" }, { status: 404 });
  const now: Record<"post" | "probe" | "result" | "greeting", () => Reply> = {
    post: gone,
    probe: () => json({ message: "Validation error" }, { status: 422 }),
    result: () => new Response(null, { status: 204 }),
    greeting: () => "Testflinger Server v1",
  };
  const server = serve(({ method, path }) => {
    if (path === "/v1/") return now.greeting();
    if (path.includes("no-job")) return now.probe();
    if (path.endsWith("/status")) return new Response("Not found", { status: 404 });
    return method === "POST" ? now.post() : now.result();
  });
  return Object.assign(server, { now, gone });
}

const OF_A_JOB = ["postResult", "postLog", "postArtifact", "postEvents"] as const;

Deno.test("a 404 about a job is believed of a current server that knows no result of it either", async () => {
  for (const name of OF_A_JOB) {
    await using server = forgetful();
    using link = connect(server);
    const failure = failed(await CALLS[name]!(link.client));
    assertEquals(failure.kind, "forgotten", name);
    assertStringIncludes(failure.message, "knows nothing of the job any more");
    server.now.result = server.gone;
    assertEquals(failed(await CALLS[name]!(link.client)).kind, "forgotten", name);
  }
});

Deno.test("a 404 about a job is not believed while anything speaks against it", async () => {
  const doubts: Partial<ReturnType<typeof forgetful>["now"]>[] = [
    { result: () => json({ job_state: "test" }) },
    { result: () => page(404) },
    { result: () => new Response("default backend - 404", { status: 404 }) },
    { result: () => new Response(null, { status: 503 }) },
    { greeting: () => page(200) },
    { greeting: () => "default backend - 404" },
    { probe: () => page(404) },
    { probe: () => new Response(null, { status: 502 }) },
    { post: () => page(404) },
  ];
  for (const doubt of doubts) {
    for (const name of OF_A_JOB) {
      await using server = forgetful();
      Object.assign(server.now, doubt);
      using link = connect(server);
      const failure = failed(await CALLS[name]!(link.client));
      assertFalse(isFinal(failure), `${name}: ${failure.kind} with ${Object.keys(doubt)}`);
    }
  }
});

Deno.test("a provision log of an agent that the server does not know is with the server", async () => {
  let reply: () => Reply = () =>
    new Response("Agent not found\n", { status: 404, headers: { "Content-Type": "text/html" } });
  let greeting = "Testflinger Server v1";
  await using server = serve(({ path }) => path === "/v1/" ? greeting : reply());
  using link = connect(server);
  const post = () =>
    link.client.postProvisionLog({ job_id: JOB_ID, exit_code: 0, detail: "provision_success" });
  succeeded(await post());
  // Before 2023 there was no such endpoint.
  reply = () => new Response("Not found: 404 Not Found\n", { status: 404 });
  assertEquals(failed(await post()).kind, "refused");
  greeting = "default backend - 404";
  assertEquals(failed(await post()).kind, "missing");
});
