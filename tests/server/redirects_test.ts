import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { connect, failed, JOB_ID, json, serve } from "./support/http.ts";

const cookie = { "Set-Cookie": "agent_name=rpi4-01; HttpOnly" };

function redirect(location: string, status: number): Response {
  return new Response(null, { status, headers: { Location: location } });
}

Deno.test("a redirect on the same server keeps token and cookie", async () => {
  await using server = serve(({ path }) =>
    path === "/v1/agents/data/rpi4-01"
      ? json({}, { headers: cookie })
      : path.startsWith("/v1/job")
      ? redirect("/elsewhere", 302)
      : json({ job_id: JOB_ID })
  );
  using link = connect({ ...server, address: server.address.replace("//", "//u:p@") });
  const { client } = link;
  await client.postAgent({});
  assert((await client.nextJob(["q"])).ok);
  const last = server.seen.at(-1);
  assertEquals(last?.path, "/elsewhere");
  assertEquals(last?.headers.get("cookie"), "agent_name=rpi4-01");
  assertEquals(last?.headers.get("authorization"), `Basic ${btoa("u:p")}`);
});

Deno.test("a redirect to another server drops token and cookie, and back again they return", async () => {
  await using other = serve(({ path }) =>
    path === "/back" ? redirect(`${server.address}/home`, 307) : json({})
  );
  await using server = serve(({ path }) =>
    path === "/v1/agents/data/rpi4-01"
      ? json({}, { headers: cookie })
      : path.startsWith("/v1/job")
      ? redirect(`${other.address}/back`, 307)
      : json({})
  );
  using link = connect({ ...server, address: server.address.replace("//", "//u:p@") });
  const { client } = link;
  await client.postAgent({});
  assert((await client.nextJob(["q"])).ok);
  assertEquals(
    other.seen.map(({ headers }) => [headers.get("cookie"), headers.get("authorization")]),
    [
      [null, null],
    ],
  );
  assertEquals(server.seen.at(-1)?.headers.get("cookie"), "agent_name=rpi4-01");
});

Deno.test("a circle of redirects is left after five", async () => {
  await using server = serve(() => redirect("/again", 302));
  using link = connect(server);
  const { client } = link;
  const answer = failed(await client.getAgent());
  assertEquals(answer.kind, "foreign");
  assertStringIncludes(answer.message, "redirected too often");
  assertEquals(server.seen.length, 6);
});

Deno.test("307 and 308 on the same server repeat a post with its body", async () => {
  for (const status of [307, 308]) {
    await using server = serve(({ path }) =>
      path.startsWith("/v1/") ? redirect("/moved", status) : json({})
    );
    using link = connect(server);
    const { client } = link;
    assert((await client.postResult(JOB_ID, { job_state: "test" })).ok);
    assertEquals(server.seen.map(({ method, body }) => [method, body]), [
      ["POST", '{"job_state":"test"}'],
      ["POST", '{"job_state":"test"}'],
    ]);
  }
});

Deno.test("a post that is redirected in any other way says what server_address should be", async () => {
  const target = "https://tf.example.com/v1/x?token=y";
  for (const status of [301, 302, 303, 307, 308]) {
    await using server = serve(() => redirect(target, status));
    using link = connect(server);
    const { client } = link;
    const answer = failed(await client.postAgent({ state: "waiting" }));
    assertEquals([answer.kind, answer.status], ["foreign", status]);
    assertStringIncludes(answer.message, "server_address should say https://tf.example.com");
  }
  await using server = serve(() => redirect("/v1/other", 302));
  using link = connect(server);
  const { client } = link;
  const answer = failed(await client.postAgent({ state: "waiting" }));
  assertEquals(answer.kind, "foreign");
});

Deno.test("a redirect to what is not HTTP is not followed", async () => {
  for (const location of ["file:///etc/passwd", "data:application/json,{}", "http://"]) {
    await using server = serve(() => redirect(location, 302));
    using link = connect(server);
    const { client } = link;
    const answer = failed(await client.getAgent());
    assertStringIncludes(answer.message, "not an HTTP address");
  }
});
