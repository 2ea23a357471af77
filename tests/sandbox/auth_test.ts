import { assertEquals, assertNotEquals } from "@std/assert";
import type { Role } from "../../lib/sandbox/auth.ts";
import { createSandbox, type Sandbox } from "../../lib/sandbox/sandbox.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { fragment, get, post, UNKNOWN_JOB } from "./call.ts";

async function bearer(sandbox: Sandbox, role: Role): Promise<{ Authorization: string }> {
  sandbox.addRefreshToken(`refresh-${role}`, { role, clientId: role });
  const body = { refresh_token: `refresh-${role}` };
  const { access_token } = await (await post(sandbox, "/v1/oauth2/refresh", body)).json();
  return { Authorization: `Bearer ${access_token}` };
}

const RESULT = `/v1/result/${UNKNOWN_JOB}`;
const JOB = `/v1/job/${UNKNOWN_JOB}`;
const ENTRY = { job_id: UNKNOWN_JOB, exit_code: 0, detail: "x" };
const EVENTS = { agent_id: "a", job_queue: "q", job_status_webhook: "http://h", events: [] };
const PEOPLE: Role[] = ["admin", "manager", "contributor"];
const KEEPERS: Role[] = ["admin", "manager", "agent"];

/** Who may do what, as the real server's table of permissions has it. */
const ENDPOINTS: [string, string, unknown, Role[]][] = [
  ["GET", "/v1/agents/data", undefined, PEOPLE],
  ["GET", "/v1/agents/data/x", undefined, [...PEOPLE, "agent"]],
  ["POST", "/v1/agents/data/x", {}, KEEPERS],
  ["POST", "/v1/agents/images", {}, KEEPERS],
  ["GET", "/v1/agents/images/q", undefined, PEOPLE],
  ["POST", "/v1/agents/provision_logs/x", ENTRY, ["agent"]],
  ["GET", "/v1/agents/queues", undefined, PEOPLE],
  ["POST", "/v1/agents/queues", {}, KEEPERS],
  ["GET", "/v1/job?queue=q", undefined, ["agent"]],
  ["POST", "/v1/job", { job_queue: "none" }, PEOPLE],
  ["GET", "/v1/job/search", undefined, PEOPLE],
  ["GET", JOB, undefined, PEOPLE],
  ["POST", `${JOB}/action`, { action: "cancel" }, PEOPLE],
  ["GET", `${JOB}/attachments`, undefined, ["agent"]],
  ["POST", `${JOB}/attachments`, {}, PEOPLE],
  ["POST", `${JOB}/events`, EVENTS, ["agent"]],
  ["GET", `${JOB}/position`, undefined, PEOPLE],
  ["GET", "/v1/queues", undefined, PEOPLE],
  ["GET", "/v1/queues/q/agents", undefined, PEOPLE],
  ["GET", "/v1/queues/q/jobs", undefined, PEOPLE],
  ["GET", RESULT, undefined, [...PEOPLE, "agent"]],
  ["POST", RESULT, {}, ["agent"]],
  ["GET", `${RESULT}/status`, undefined, [...PEOPLE, "agent"]],
  ["GET", `${RESULT}/artifact`, undefined, PEOPLE],
  ["POST", `${RESULT}/artifact`, {}, ["agent"]],
  ["GET", `${RESULT}/log/output`, undefined, PEOPLE],
  ["POST", `${RESULT}/log/output`, fragment(), ["agent"]],
  ["POST", `${RESULT}/log/serial`, fragment(), ["agent"]],
];

for (const [method, path, body, allowed] of ENDPOINTS) {
  Deno.test(`with tokens on, ${method} ${path} is open to ${allowed.join(", ")} only`, async () => {
    const sandbox = createSandbox({ tokens: true });
    const call = (headers: Record<string, string>) =>
      method === "GET" ? get(sandbox, path, headers) : post(sandbox, path, body, headers);
    for (const role of ["admin", "manager", "contributor", "agent"] as const) {
      const answer = await call(await bearer(sandbox, role));
      const text = await answer.text();
      assertEquals(answer.status !== 403, allowed.includes(role), `${role}: ${text}`);
      if (answer.status === 403) {
        const message = `Specified action requires role: ${allowed.join(", ")}`;
        assertEquals(JSON.parse(text).message, message);
      }
    }
    const anonymous = await call({});
    assertEquals(anonymous.status !== 403, allowed.includes("contributor"));
    assertEquals((await call({ Authorization: "Bearer made-up" })).status, 403);
    await anonymous.body?.cancel();
  });
}

Deno.test("a refresh token buys an access token that is good for ten minutes", async () => {
  const clock = new FakeClock();
  const sandbox = createSandbox({ tokens: true, clock });
  sandbox.addRefreshToken("secret");
  const answer = await post(sandbox, "/v1/oauth2/refresh", { refresh_token: "secret" });
  assertEquals(answer.status, 200);
  const { access_token, ...rest } = await answer.json();
  assertEquals(rest, { expires_in: 600, token_type: "Bearer" });
  const headers = { Authorization: `Bearer ${access_token}` };
  const ask = async () => {
    const reply = await post(sandbox, "/v1/agents/data/x", {}, headers);
    return [reply.status, (await reply.json()).message];
  };
  await clock.advance(599_999);
  assertEquals(await ask(), [200, undefined]);
  await clock.advance(1);
  assertEquals(await ask(), [401, "Token has expired"]);
});

Deno.test("a test can make access tokens expire, and choose how long they are good for", async () => {
  const sandbox = createSandbox({ tokens: true, accessTokenSeconds: 30 });
  sandbox.addRefreshToken("secret");
  const refresh = async () =>
    await (await post(sandbox, "/v1/oauth2/refresh", { refresh_token: "secret" })).json();
  const first = await refresh();
  assertEquals(first.expires_in, 30);
  sandbox.expireAccessTokens();
  const second = await refresh();
  assertNotEquals(first.access_token, second.access_token);
  const status = async (token: string) =>
    (await post(sandbox, "/v1/agents/data/x", {}, { Authorization: `Bearer ${token}` })).status;
  assertEquals([await status(first.access_token), await status(second.access_token)], [401, 200]);
});

Deno.test("an unknown or revoked refresh token is 400, a malformed request 422", async () => {
  const sandbox = createSandbox({ tokens: true });
  sandbox.addRefreshToken("secret");
  const refresh = async (body: unknown) => {
    const answer = await post(sandbox, "/v1/oauth2/refresh", body);
    return [answer.status, (await answer.json()).message];
  };
  assertEquals(await refresh({ refresh_token: "other" }), [400, "Invalid refresh token."]);
  assertEquals(await refresh({ refresh_token: "" }), [422, "Validation error"]);
  assertEquals(await refresh({}), [422, "Validation error"]);
  assertEquals(await refresh({ refresh_token: "secret", colour: 1 }), [422, "Validation error"]);
  sandbox.revokeRefreshToken("secret");
  assertEquals(await refresh({ refresh_token: "secret" }), [400, "Refresh token revoked."]);
});

Deno.test("a client's name and secret buy both tokens, and the role is readable in one", async () => {
  const sandbox = createSandbox({ tokens: true });
  sandbox.addClient({ clientId: "me", secret: "with:colon", role: "admin" });
  const login = (credentials: string) =>
    post(sandbox, "/v1/oauth2/token", {}, { Authorization: `Basic ${btoa(credentials)}` });
  const answer = await (await login("me:with:colon")).json();
  const payload = answer.access_token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
  assertEquals(JSON.parse(atob(payload)).permissions, { client_id: "me", role: "admin" });
  const body = { refresh_token: answer.refresh_token };
  assertEquals((await post(sandbox, "/v1/oauth2/refresh", body)).status, 200);
  for (const wrong of ["me:other", "you:with:colon", "me:", "me"]) {
    assertEquals((await login(wrong)).status, 401, wrong);
  }
  assertEquals((await post(sandbox, "/v1/oauth2/token", {})).status, 401);
});

Deno.test("with tokens off every request is allowed, and any login is an administrator's", async () => {
  const sandbox = createSandbox();
  const headers = { Authorization: `Basic ${btoa("me:anything")}` };
  const { access_token } = await (await post(sandbox, "/v1/oauth2/token", {}, headers)).json();
  for (const token of [access_token, "made-up"]) {
    const answer = await post(sandbox, RESULT, {}, { Authorization: `Bearer ${token}` });
    assertEquals(answer.status, 200);
  }
});

for (
  const [what, job] of [
    ["a priority", { job_priority: 1 }],
    ["a reservation of more than six hours", { reserve_data: { timeout: "7h" } }],
    ["a restricted queue", {}],
  ] as const
) {
  Deno.test(`with tokens on, ${what} is 401 for a person without one`, async () => {
    const sandbox = createSandbox({ tokens: true });
    if (what === "a restricted queue") sandbox.restrict("q", ["me"]);
    const body = { job_queue: "q", ...job };
    const anonymous = await post(sandbox, "/v1/job", body);
    assertEquals(anonymous.status, 401, await anonymous.text());
    const known = await post(sandbox, "/v1/job", body, await bearer(sandbox, "contributor"));
    assertEquals(known.status, 200);
  });
}
