import { assert, assertEquals, assertFalse, assertStringIncludes } from "@std/assert";
import { Connections } from "../../lib/server/connections.ts";
import { FakeClock } from "../support/fake_clock.ts";
import {
  connect,
  failed,
  JOB_ID,
  json,
  type Reply,
  serve,
  succeeded,
  until,
} from "./support/http.ts";

const PATH = "/v1/agents/data/rpi4-01";

/** A server that demands tokens, and gives them for one refresh token. */
function guarded(refreshToken = "refresh-1") {
  const now = {
    refreshToken,
    /** Access tokens that are good. */
    valid: new Set<string>(),
    given: 0,
    expiresIn: 600,
    refresh: undefined as (() => Reply) | undefined,
    plain: () => json({ status: "OK" }),
  };
  const server = serve(({ path, headers, body }): Reply => {
    if (path === "/v1/oauth2/refresh") {
      if (now.refresh !== undefined) return now.refresh();
      if (JSON.parse(body).refresh_token !== now.refreshToken) {
        return json({ message: `Invalid refresh token: ${JSON.parse(body).refresh_token}` }, {
          status: 400,
        });
      }
      now.given += 1;
      now.valid.add(`access-${now.given}`);
      return json({
        access_token: `access-${now.given}`,
        token_type: "Bearer",
        expires_in: now.expiresIn,
      });
    }
    const token = headers.get("authorization")?.replace("Bearer ", "");
    if (token === undefined) {
      return json({ message: "Specified action requires role: agent" }, { status: 403 });
    }
    if (!now.valid.has(token)) return json({ message: "Token has expired" }, { status: 401 });
    return now.plain();
  });
  /** What was asked since the last time: the path's end and the token. */
  const asked = () =>
    server.seen.splice(0).map(({ path, headers }) =>
      `${path === PATH ? "agent" : path.replace("/v1/", "")} ${headers.get("authorization") ?? "-"}`
    );
  return Object.assign(server, { now, asked });
}

async function inFolder(run: (file: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await run(`${folder}/refresh_token`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function put(file: string, token: string): Promise<void> {
  return Deno.writeTextFile(file, JSON.stringify({ refresh_token: token }));
}

/** An agent's client of a server that demands tokens, with a refresh token that is good. */
function withToken(
  test: (
    parts: ReturnType<typeof connect> & { server: Guarded; tokenFile: string },
  ) => Promise<void>,
): Promise<void> {
  return inFolder(async (tokenFile) => {
    await put(tokenFile, "refresh-1");
    await using server = guarded();
    using link = connect({ ...server, tokenFile });
    await test({ ...link, server, tokenFile });
  });
}

type Guarded = ReturnType<typeof guarded>;

Deno.test("requests carry a token, which is asked for without one", () =>
  withToken(async ({ client, log, server }) => {
    succeeded(await client.postAgent({}));
    succeeded(await client.postResult(JOB_ID, {}));
    assertEquals(server.asked(), [
      "oauth2/refresh -",
      "agent Bearer access-1",
      `result/${JOB_ID} Bearer access-1`,
    ]);
    assertEquals(log.lines, []);
  }));

Deno.test("a token is replaced ahead of its end, without a request that meets a 401", () =>
  withToken(async ({ client, clock, server }) => {
    succeeded(await client.postAgent({}));
    await clock.advance(479_000);
    succeeded(await client.postAgent({}));
    await clock.advance(1_000);
    succeeded(await client.postAgent({}));
    assertEquals(server.asked(), [
      "oauth2/refresh -",
      "agent Bearer access-1",
      "agent Bearer access-1",
      "oauth2/refresh -",
      "agent Bearer access-2",
    ]);
  }));

Deno.test("requests at the same time share one refresh, also after a 401", () =>
  withToken(async ({ client, server }) => {
    const five = () => Promise.all(Array.from({ length: 5 }, () => client.postAgent({})));
    (await five()).forEach(succeeded);
    assertEquals(server.now.given, 1);
    server.now.valid.clear();
    (await five()).forEach(succeeded);
    assert(server.now.given <= 3, `${server.now.given} tokens for five requests`);
  }));

Deno.test("one request's giving up does not take the token from the others", () =>
  inFolder(async (tokenFile) => {
    await put(tokenFile, "refresh-1");
    await using server = guarded();
    let release = () => {};
    const held = new Promise<void>((resolve) => release = resolve);
    server.now.refresh = () =>
      held.then(() => {
        server.now.valid.add("late");
        return json({ access_token: "late", expires_in: 600 });
      });
    using link = connect({ ...server, tokenFile });
    const { client } = link;
    const controller = new AbortController();
    const first = client.postAgent({}, controller.signal);
    const second = client.postAgent({});
    await until(() => server.seen.length > 0);
    controller.abort();
    assertEquals(failed(await first).kind, "aborted");
    release();
    succeeded(await second);
  }));

Deno.test("a 401 renews the token and repeats the request once", () =>
  withToken(async ({ client, server }) => {
    succeeded(await client.postAgent({}));
    server.now.valid.clear();
    succeeded(await client.postResult(JOB_ID, { job_state: "test" }));
    assertEquals(server.seen.at(-1)?.body, '{"job_state":"test"}');
    assertEquals(server.asked().slice(2), [
      `result/${JOB_ID} Bearer access-1`,
      "oauth2/refresh -",
      `result/${JOB_ID} Bearer access-2`,
    ]);
    // Fresh tokens are no good either.
    server.now.plain = () => json({ message: "Invalid token" }, { status: 401 });
    const failure = failed(await client.postAgent({}));
    assertEquals(failure.kind, "unauthorised");
    assertEquals(server.asked().length, 3);
  }));

Deno.test("the file is read again at each refresh: a rotated token is taken up", () =>
  withToken(async ({ client, server, tokenFile }) => {
    succeeded(await client.postAgent({}));
    server.now.refreshToken = "refresh-2";
    server.now.valid.clear();
    await put(tokenFile, "refresh-2");
    succeeded(await client.postAgent({}));
  }));

Deno.test("without a token file requests go out bare, said once, until the file is there", () =>
  inFolder(async (tokenFile) => {
    await using server = guarded();
    using link = connect({ ...server, tokenFile });
    const { client, log } = link;
    for (let i = 0; i < 3; i++) {
      const failure = failed(await client.postAgent({}));
      // Not forbidden: with a token the same request may succeed.
      assertEquals([failure.kind, failure.status], ["unauthorised", 403]);
      assertStringIncludes(failure.message, "sent without a token: there is no token file");
    }
    assertEquals(log.lines.map(({ level }) => level), ["info"]);
    await put(tokenFile, "refresh-1");
    succeeded(await client.postAgent({}));
    assertEquals(server.asked(), [
      "agent -",
      "agent -",
      "agent -",
      "oauth2/refresh -",
      "agent Bearer access-1",
    ]);
    assertStringIncludes(log.lines[1]?.message ?? "", "carry a token");
  }));

Deno.test("an agent that starts before its server gets its token once the server is there", () =>
  inFolder(async (tokenFile) => {
    await put(tokenFile, "refresh-1");
    await using server = guarded();
    server.now.refresh = () => new Response(null, { status: 503, headers: { "Retry-After": "5" } });
    using link = connect({ ...server, tokenFile });
    const { client } = link;
    const failure = failed(await client.postAgent({}));
    assertEquals([failure.kind, failure.status, failure.retryAfterMs], ["busy", undefined, 5000]);
    assertStringIncludes(failure.message, "no token: POST");
    // Without its token it would only have been refused.
    assertEquals(server.asked(), ["oauth2/refresh -"]);
    server.now.refresh = undefined;
    succeeded(await client.postAgent({}));
  }));

Deno.test("a token serves to its end while no successor is to be had, and that is not asked for all the time", () =>
  withToken(async ({ client, clock, server }) => {
    succeeded(await client.postAgent({}));
    server.now.refresh = () => new Response(null, { status: 500 });
    await clock.advance(500_000);
    for (let i = 0; i < 5; i++) succeeded(await client.postAgent({}));
    await clock.advance(10_000);
    succeeded(await client.postAgent({}));
    assertEquals(server.asked().filter((line) => line.startsWith("oauth2")).length, 3);
    await clock.advance(100_000);
    assertEquals(failed(await client.postAgent({})).kind, "busy");
  }));

Deno.test("a refused refresh token is one clear line, without the token, and the server is left alone", () =>
  inFolder(async (tokenFile) => {
    await put(tokenFile, "wr0ng-token");
    await using server = guarded();
    using link = connect({ ...server, tokenFile });
    const { client, log, clock } = link;
    for (let i = 0; i < 20; i++) failed(await client.postAgent({}));
    assertEquals(server.asked().filter((line) => line.startsWith("oauth2")).length, 1);
    assertEquals(log.lines.length, 1);
    const [line] = log.lines;
    assertEquals(line?.level, "error");
    assertStringIncludes(line?.message ?? "", "have a new one issued");
    assertStringIncludes(line?.message ?? "", "400 Bad Request: Invalid refresh token: ***");
    assertFalse(JSON.stringify(log.lines).includes("wr0ng"));
    // Tried again after a while, and at once when the file changes.
    await clock.advance(60_000);
    failed(await client.postAgent({}));
    assertEquals(server.asked().filter((line) => line.startsWith("oauth2")).length, 1);
    assertEquals(log.lines.length, 1);
    await put(tokenFile, "refresh-1");
    succeeded(await client.postAgent({}));
  }));

Deno.test("a token file that holds nonsense is one clear line each time it changes", () =>
  inFolder(async (tokenFile) => {
    await using server = guarded();
    using link = connect({ ...server, tokenFile });
    const { client, log } = link;
    const contents = [
      "s3cret but not JSON",
      "[1, 2]",
      '{"refresh_token": ""}',
      '{"other": "s3cret"}',
    ];
    for (const [index, content] of contents.entries()) {
      await Deno.writeTextFile(tokenFile, content);
      failed(await client.postAgent({}));
      failed(await client.postAgent({}));
      assertEquals(log.lines.length, index + 1);
    }
    assertEquals(log.lines.map(({ level }) => level), ["error", "error", "warning", "warning"]);
    assertFalse(JSON.stringify(log.lines).includes("s3cret"));
  }));

Deno.test("a token file that cannot be read is named, with what to do", () =>
  inFolder(async (tokenFile) => {
    await Deno.mkdir(tokenFile);
    await using server = guarded();
    using link = connect({ ...server, tokenFile });
    const { client, log } = link;
    failed(await client.postAgent({}));
    failed(await client.postAgent({}));
    assertEquals(log.lines.length, 1);
    assertStringIncludes(log.lines[0]?.message ?? "", `Cannot read the token file ${tokenFile}`);
  }));

Deno.test("a server from before tokens is served without one, whatever file there is", () =>
  inFolder(async (tokenFile) => {
    await put(tokenFile, "refresh-1");
    await using server = serve(({ path }) =>
      path === "/v1/oauth2/refresh" ? new Response(null, { status: 404 }) : json({})
    );
    using link = connect({ ...server, tokenFile });
    const { client, log } = link;
    for (let i = 0; i < 5; i++) succeeded(await client.postAgent({}));
    assertEquals(server.seen.length, 6);
    assertEquals(log.lines.map(({ level }) => level), ["warning"]);
  }));

Deno.test("a refresh that brings no token is tried again, and never looks like an answer to the request", () =>
  withToken(async ({ client, server }) => {
    const replies = [
      () => new Response("<html>Log in</html>"),
      () => json({ access_token: "" }),
      () => json({ access_token: "a\nb" }),
    ];
    for (server.now.refresh of replies) {
      assert(["foreign", "busy"].includes(failed(await client.postAgent({})).kind));
    }
    server.now.refresh = undefined;
    succeeded(await client.postAgent({}));
  }));

Deno.test("a missing cookie is no reason for another token", () =>
  inFolder(async (tokenFile) => {
    await put(tokenFile, "refresh-1");
    await using server = guarded();
    server.now.plain = () => json({ message: "Agent not identified" }, { status: 401 });
    using link = connect({ ...server, tokenFile });
    const { client } = link;
    failed(await client.nextJob(["q"]));
    assertEquals(server.now.given, 1);
  }));

Deno.test("not even the half of a token that a shortened message would end in is shown", () =>
  inFolder(async (tokenFile) => {
    await put(tokenFile, "wr0ng-token");
    await using server = guarded();
    server.now.refresh = () => json({ message: `${"x".repeat(195)}wr0ng-token` }, { status: 400 });
    using link = connect({ ...server, tokenFile });
    failed(await link.client.postAgent({}));
    assertFalse(JSON.stringify(link.log.lines).includes("wr0ng"));
  }));

Deno.test("a token whose role does not suffice is forbidden, and asking for another is no use", () =>
  inFolder(async (tokenFile) => {
    await put(tokenFile, "refresh-1");
    await using server = guarded();
    server.now.plain = () =>
      json({ message: "Specified action requires role: agent" }, { status: 403 });
    using link = connect({ ...server, tokenFile });
    const failure = failed(await link.client.postAgent({}));
    assertEquals(failure.kind, "forbidden");
    assertEquals(server.now.given, 1);
  }));

Deno.test("clients of one process share connections, and the token of a file; the end of one is not another's", () =>
  inFolder(async (tokenFile) => {
    await using server = guarded();
    const shared = new Connections(new FakeClock());
    const join = (agentId: string) =>
      connect({ address: server.address, agentId, tokenFile, shared });
    using first = join("a");
    using second = join("b");
    failed(await first.client.getAgent());
    const absent =
      `There is no token file ${tokenFile}: requests go out without a token until there is`;
    assert(second.log.lines.some(({ message }) => message === absent));
    // One that begins later is told, too.
    using third = join("c");
    assert(third.log.lines.some(({ message }) => message === absent));

    await put(tokenFile, "refresh-1");
    server.now.plain = () => json({ name: "x" });
    for (const { client } of [first, second, third]) succeeded(await client.getAgent());
    assertEquals(server.now.given, 1);
    assertEquals(server.connections, 1);
    for (const { log } of [first, second, third]) {
      assert(log.lines.some(({ message }) => message.includes(`a token of ${tokenFile} now`)));
    }

    // The one that asks for the next token ends meanwhile: the other asks itself.
    server.now.valid.clear();
    const asked = Promise.withResolvers<void>();
    const never = Promise.withResolvers<Response>();
    server.now.refresh = () => {
      server.now.refresh = undefined;
      asked.resolve();
      return never.promise;
    };
    const given = first.client.getAgent();
    await asked.promise;
    const waiting = second.client.getAgent();
    first.client.close();
    failed(await given);
    succeeded(await waiting);
    succeeded(await third.client.getAgent());
    assertEquals(server.now.given, 2);
    never.resolve(json({}));
    shared.close();
  }));
