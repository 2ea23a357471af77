import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { HttpServer } from "../../lib/observe/http_server.ts";
import { startProgram } from "../support/agent_process.ts";
import { FakeClock, settle } from "../support/fake_clock.ts";
import { freePort } from "../support/free_port.ts";
import { Lab } from "../support/lab.ts";
import { recordingLog } from "../support/recording_log.ts";

const encoder = new TextEncoder();

/** Enough for the runtime, and for little more. */
const FEW_FILES = ["/bin/sh", "-c", 'ulimit -n 100 && exec "$@"', "sh"];

async function withServer(
  answer: (request: Request) => Response | Promise<Response>,
  test: (port: number, clock: FakeClock) => Promise<void>,
): Promise<void> {
  const clock = new FakeClock();
  const log = recordingLog();
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const server = new HttpServer({ listener, answer, what: "the test", clock, log });
  try {
    await test(listener.addr.port, clock);
    assertEquals(log.lines, []);
  } finally {
    await clock.advanceUntil(server.close(1000), 1000);
  }
}

async function connect(port: number, request = ""): Promise<Deno.TcpConn> {
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  if (request !== "") await conn.write(encoder.encode(request));
  return conn;
}

/** Everything that comes; a connection that is reset says so. */
async function allOf(conn: Deno.Conn): Promise<string> {
  return await new Response(conn.readable).text().catch(() => "(reset)");
}

Deno.test("an answer has its status, its headers and its body, and none of these for HEAD", () =>
  withServer((request) => {
    const { pathname, searchParams } = new URL(request.url);
    return new Response(`${request.method} ${pathname} ${searchParams.get("q")}`, {
      status: 203,
      headers: { "x-name": "value" },
    });
  }, async (port) => {
    const response = await fetch(`http://127.0.0.1:${port}/a/b?q=%C3%A9`);
    assertEquals([response.status, response.headers.get("x-name")], [203, "value"]);
    assertEquals(await response.text(), "GET /a/b é");
    const head = await fetch(`http://127.0.0.1:${port}/a`, { method: "HEAD" });
    assertEquals([head.status, await head.text()], [203, ""]);
    using old = await connect(port, "GET /x HTTP/1.0\r\n\r\n");
    const text = await allOf(old);
    assert(text.endsWith("\r\n\r\nGET /x null"), text);
    using proxied = await connect(port, "GET http://agent/y HTTP/1.1\r\n\r\n");
    assertStringIncludes(await allOf(proxied), "GET /y null");
  }));

Deno.test("what is no request gets 400", () =>
  withServer(() => new Response("here"), async (port) => {
    for (
      const request of [
        "nothing\r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        "GET / HTTP/3\r\n\r\n",
        "TRACE / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
      ]
    ) {
      using conn = await connect(port, request);
      const answer = await allOf(conn);
      assert(answer.startsWith("HTTP/1.1 400 "), `${request}: ${answer}`);
    }
  }));

Deno.test("a request has ten seconds to be complete, and 16 KiB", () =>
  withServer(() => new Response("here"), async (port, clock) => {
    using slow = await connect(port, "GET / HTTP/1.1\r\n");
    const answer = allOf(slow);
    await clock.hasWaitOf(10_000);
    await clock.advance(9_999);
    await slow.write(encoder.encode("a: b\r\n"));
    await clock.advance(1);
    assertEquals((await answer).includes("here"), false);
    using long = await connect(port, `GET / HTTP/1.1\r\na: ${"b".repeat(20_000)}`);
    assertEquals((await allOf(long)).includes("HTTP"), false);
  }));

Deno.test("who does not read their answer is cut off after a minute", () => {
  const cancelled = Promise.withResolvers<void>();
  const endless = () =>
    new ReadableStream({
      pull: (controller) => controller.enqueue(new Uint8Array(65_536)),
      cancel: () => cancelled.resolve(),
    });
  return withServer(() => new Response(endless()), async (port, clock) => {
    using _conn = await connect(port, "GET / HTTP/1.1\r\n\r\n");
    // The buffers of the connection are full, whatever their size, when nobody takes any more.
    await clock.hasWaitOf(60_000);
    await clock.advanceUntil(cancelled.promise, 60_000);
  });
});

Deno.test("the request that has waited longest makes room for a new one, and answers under way stay", () =>
  withServer((request) => {
    if (new URL(request.url).pathname !== "/events") return new Response("here");
    const headers = { "content-type": "text/event-stream" };
    return new Response(ReadableStream.from(["data: 1\n\n"]).pipeThrough(neverEnding()), {
      headers,
    });
  }, async (port) => {
    using events = await connect(port, "GET /events HTTP/1.1\r\n\r\n");
    await events.read(new Uint8Array(1000));
    const conns: Deno.Conn[] = [];
    for (let i = 0; i < 400; i++) conns.push(await connect(port, "GET / HTTP/1.1\r\n"));
    assertEquals(await (await fetch(`http://127.0.0.1:${port}/`)).text(), "here");
    // Each takes a file, of which jobs need some, too: 32 are enough.
    for (const conn of conns.splice(0, 400 - 32)) assertEquals(await allOf(conn), "");
    await conns.at(-1)!.write(encoder.encode("\r\n"));
    assertStringIncludes(await allOf(conns.pop()!), "here");
    for (const conn of conns) conn.close();
  }));

function neverEnding(): TransformStream<string, Uint8Array> {
  return new TransformStream({
    transform: (text, controller) => controller.enqueue(encoder.encode(text)),
    flush: () => new Promise(() => {}),
  });
}

Deno.test("a server that has no file left for a connection says so once, and goes on when it has", async () => {
  const fixture = join(import.meta.dirname ?? "", "fixtures", "files_run_out.ts");
  const [command = "", ...args] = [
    ...FEW_FILES,
    ...[Deno.execPath(), "run", "--quiet", "--allow-net", "--allow-read", "--allow-write", fixture],
  ];
  const child = new Deno.Command(command, { args, stdin: "piped", stdout: "piped" }).spawn();
  const stdin = child.stdin.getWriter();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let output = "";
  const until = async (text: string) => {
    while (!output.includes(text)) {
      const { done, value } = await lines.read();
      assert(!done, `it ended with: ${output}`);
      output += value;
    }
  };
  try {
    await until("\n");
    const port = Number(/port (\d+)/.exec(output)?.[1]);
    await stdin.write(encoder.encode("use them up\n"));
    await until("no files are left");
    using conn = await connect(port, "GET / HTTP/1.1\r\n\r\n");
    await until("error Cannot take a connection to the test");
    await stdin.write(encoder.encode("free them\n"));
    assertStringIncludes(await allOf(conn), "here");
    assertEquals(output.match(/^error /gm)?.length, 1, output);
  } finally {
    child.kill("SIGKILL");
    await lines.cancel();
    await stdin.close().catch(() => {});
    await child.status;
  }
});

Deno.test("400 half-open connections to the metrics port of an agent with few files harm neither it nor its job", async () => {
  await using lab = await Lab.open({ config: { agent_id: `half-${crypto.randomUUID()}` } });
  const port = freePort();
  const config = await lab.writeConfig({
    metrics_port: port,
    test_command: "echo tested; while [ ! -e ../go ]; do sleep 0.02; done; echo done",
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  await using agent = startProgram(["-c", config], { through: FEW_FILES });
  await lab.until(() => lab.output(jobId, "test").includes("tested"), "the test runs");
  const conns: Deno.Conn[] = [];
  for (let i = 0; i < 400; i++) conns.push(await connect(port, "GET /metrics HTTP/1.1\r\n"));
  assertStringIncludes(
    await (await fetch(`http://127.0.0.1:${port}/metrics`)).text(),
    "jobs_total",
  );
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.complete(jobId);
  assertEquals(lab.statuses(jobId), { test: 0 });
  for (const conn of conns) conn.close();
  agent.kill("SIGTERM");
  assertEquals(await agent.exited, 0, agent.output());
  const errors = agent.output().split("\n").filter((line) => line.includes("ERROR"));
  assert(errors.every((line) => line.includes("Cannot take a connection")), agent.output());
  assert(errors.length <= 1, agent.output());
});

Deno.test("a form may come in parts; one that is too long, or never comes whole, is not answered", () =>
  withServer(
    async (request) => new Response(`got ${await request.text()}`),
    async (port, clock) => {
      const head = (length: number) => `POST / HTTP/1.1\r\nContent-Length: ${length}\r\n\r\n`;
      using conn = await connect(port, `${head(8)}a=1`);
      await settle();
      await conn.write(encoder.encode("&b=\xe9 and more that belongs to nobody"));
      assertStringIncludes(await allOf(conn), "got a=1&b=é");
      using long = await connect(port, `${head(20_000)}${"x".repeat(20_000)}`);
      assertEquals((await allOf(long)).includes("got"), false);
      using never = await connect(port, `${head(5)}a=`);
      const answer = allOf(never);
      await clock.hasWaitOf(10_000);
      await clock.advance(10_000);
      assertEquals((await answer).includes("got"), false);
    },
  ));
