import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  connect,
  failed,
  JOB_ID,
  json,
  serve,
  serveRaw,
  serveSlowly,
  succeeded,
  until,
  write,
} from "./support/http.ts";

Deno.test("the state of a job is known before the rest of its result has come", async () => {
  await using server = serveRaw(async (connection) => {
    const body = `{"allocate_output": "a log", "job_state": "cancelled", "provision_output": "`;
    await write(connection, `HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n${body}`);
  });
  using link = connect(server);
  const { client } = link;
  assertEquals(succeeded(await client.getJobState(JOB_ID)), "cancelled");
});

Deno.test("once the state is known the server is told to stop: 100 MB of log do not travel", async () => {
  const piece = "x".repeat(65_536);
  let sent = 0;
  let stopped = false;
  await using server = serve(() =>
    new Response(
      new ReadableStream({
        start(controller) {
          const head = '{"cleanup_output": "", "job_state": "test", "test_output": "';
          controller.enqueue(new TextEncoder().encode(head));
        },
        pull(controller) {
          sent += piece.length;
          if (sent > 100_000_000) return controller.close();
          controller.enqueue(new TextEncoder().encode(piece));
        },
        cancel: () => void (stopped = true),
      }),
    )
  );
  using link = connect(server);
  const { client } = link;
  assertEquals(succeeded(await client.getJobState(JOB_ID)), "test");
  await until(() => stopped);
  // What fits into the buffers of the connection.
  assert(sent < 20_000_000, `${sent} bytes were sent`);
});

Deno.test("the state is found wherever it stands, and no log can imitate it", async () => {
  const bodies: [unknown, string | undefined][] = [
    [{ job_state: "setup" }, "setup"],
    [
      { a_output: '"job_state": "cancelled"', device_info: { job_state: "x" }, job_state: "test" },
      "test",
    ],
    [{ test_output: "x".repeat(300_000), job_state: "reserve" }, "reserve"],
    [{ test_output: "x" }, undefined],
    [{ job_state: null }, undefined],
    [{}, undefined],
  ];
  for (const [body, state] of bodies) {
    await using server = serve(() => json(body));
    using link = connect(server);
    const { client } = link;
    assertEquals(succeeded(await client.getJobState(JOB_ID)), state);
  }
});

Deno.test("statuses are known as far as the state is read: all of them where there are no logs", async () => {
  const body = {
    cleanup_status: 0,
    firmware_update_status: null,
    job_state: "reserve",
    setup_status: 0,
    test_status: 46,
  };
  for (const hasStatus of [true, false]) {
    await using server = serve(({ path }) =>
      hasStatus || !path.endsWith("/status") ? json(body) : new Response("none", { status: 404 })
    );
    using link = connect(server);
    const { client } = link;
    const answer = await client.getStatuses(JOB_ID);
    const statuses = hasStatus ? { cleanup: 0, setup: 0, test: 46 } : { cleanup: 0 };
    assertEquals(answer.ok && answer.statuses, statuses);
  }
});

Deno.test("204 and an empty answer mean that nothing is known of the job", async () => {
  for (const status of [204, 200]) {
    await using server = serve(() => new Response(null, { status }));
    using link = connect(server);
    const { client } = link;
    assertEquals(succeeded(await client.getJobState(JOB_ID)), undefined);
    assertEquals(await client.viewResult(JOB_ID), { ok: true, value: { logBytes: {} } });
  }
});

Deno.test("a view of the result has the length of each log in bytes of UTF-8", async () => {
  const result = {
    cleanup_serial: "",
    device_info: { test_output: "no log" },
    job_state: "cleanup",
    provision_output: 'a"b\\\u0001\n',
    setup_output: "é€😀",
    test_output: "x".repeat(3_000_000),
    test_serial: "\u0000",
    test_status: 1,
    unknown_output: "not a phase",
  };
  await using server = serve(() => json(result));
  using link = connect(server);
  const { client } = link;
  assertEquals(succeeded(await client.viewResult(JOB_ID)), {
    jobState: "cleanup",
    logBytes: {
      cleanup_serial: 0,
      provision_output: 6,
      setup_output: 9,
      test_output: 3_000_000,
      test_serial: 1,
    },
  });
});

Deno.test("a result that ends in the middle is to be asked for again", async () => {
  await using server = serve(() => new Response('{"test_output": "abc'));
  using link = connect(server);
  const { client } = link;
  for (const call of [client.getJobState(JOB_ID), client.viewResult(JOB_ID)]) {
    const failure = failed(await call);
    assertEquals(failure.kind, "unreachable");
    assertStringIncludes(failure.message, "ended in the middle");
  }
});

Deno.test("a result that is no JSON is nobody's answer, and the message does not quote the log", async () => {
  for (const body of ["secret words", '{"test_output": secret', "[]"]) {
    await using server = serve(() => new Response(body));
    using link = connect(server);
    const { client } = link;
    const failure = failed(await client.viewResult(JOB_ID));
    assertEquals(failure.kind, "foreign");
    assert(!failure.message.includes("secret"), failure.message);
  }
});

Deno.test("a result that keeps coming is read however long it takes, one that stops is not waited for", async () => {
  await using server = serveSlowly("HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n");
  using link = connect(server);
  const { client, clock } = link;
  const view = client.viewResult(JOB_ID);
  await server.begun(clock);
  for (const piece of ['{"test_output": "', "some log", "more", "and more", "and on"]) {
    await clock.noticed(() => server.send(piece));
    await clock.advance(25_000);
  }
  await clock.advance(5_000);
  const failure = failed(await view);
  assertEquals(failure.kind, "unreachable");
  assertStringIncludes(failure.message, "nothing moved for 30 s");
});
