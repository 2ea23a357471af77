/** HTTP in pieces: streamed answers, uploads from disk, limits on connecting and on silence. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { join } from "node:path";
import {
  exchange,
  type ExchangeRequest,
  type ExchangeResult,
  type HttpAnswer,
} from "../../connectors/support/http/exchange.ts";
import { multipartBody } from "../../connectors/support/http/multipart.ts";
import { readEvents, type ServerSentEvent } from "../../connectors/support/http/sse.ts";
import { restService } from "../../connectors/support/control_host/rest.ts";
import { ProvisioningError, Stopped } from "../../connectors/support/errors.ts";
import { certificates } from "../support/certificates.ts";
import { inStage } from "./support/context.ts";
import { Lab } from "./support/lab.ts";
import { closedPort, httpStub, tcpStub, until } from "./support/stubs.ts";

const LIMITS = { connectTimeoutMs: 30_000, readTimeoutMs: 60_000 };

function send(
  lab: Lab,
  url: string,
  request: Partial<ExchangeRequest> = {},
): Promise<ExchangeResult> {
  return inStage(lab, (ctx) => exchange(ctx, url, { ...LIMITS, ...request }));
}

function answered(result: ExchangeResult): HttpAnswer {
  assertEquals(result.ended, "answered", JSON.stringify(result));
  // Otherwise there would have been an exception.
  return result as HttpAnswer;
}

function failed(result: ExchangeResult): { message: string; unreachable: boolean } {
  if (result.ended === "failed") return result;
  throw new Error(`answered with status ${result.status}`);
}

const utf8 = (text: string) => new TextEncoder().encode(text);

/** A server that answers with the pieces it is given, and then does what it is told. */
function pieces(texts: readonly string[], end: "close" | "reset" | "wait") {
  return tcpStub(async (client) => {
    await client.read(new Uint8Array(4096));
    const write = (text: string) => client.write(utf8(text));
    await write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (const text of texts) {
      await write(`${utf8(text).length.toString(16)}\r\n${text}\r\n`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    if (end === "close") await write("0\r\n\r\n");
    if (end !== "wait") client.close();
  });
}

Deno.test("exchange() hands on an answer piece by piece, as it comes", async () => {
  await using lab = await Lab.open();
  await using server = pieces(["one", "two"], "wait");
  using answer = answered(await send(lab, `http://127.0.0.1:${server.port}/`));
  assertEquals([answer.status, answer.ok], [200, true]);
  const seen: string[] = [];
  for await (const piece of answer.body) {
    seen.push(new TextDecoder().decode(piece));
    // The server never ends: what has come is here nevertheless.
    if (seen.join("") === "onetwo") break;
  }
});

Deno.test("exchange() says that a connection broke off in the middle of an answer", async () => {
  await using lab = await Lab.open();
  await using server = pieces(["half"], "reset");
  using answer = answered(await send(lab, `http://127.0.0.1:${server.port}/`));
  let text = "";
  const error = await assertRejects(async () => {
    for await (const piece of answer.body) text += new TextDecoder().decode(piece);
  });
  assertEquals(text, "half");
  assertEquals((error as Error).message, "the connection broke off");
});

Deno.test("an answer as text is read whole, or it is none; of a refusal the beginning is enough", async () => {
  await using lab = await Lab.open();
  await using server = httpStub(({ path }) =>
    new Response(new Uint8Array(5 * 1024 * 1024), { status: path === "/refused" ? 403 : 200 })
  );
  const { hostname: control_host, port: control_host_port } = new URL(server.url);
  await lab.config({ control_host, control_host_port });
  await inStage(lab, async (ctx) => {
    const rest = await restService(ctx);
    const call = async (path: string) => {
      const answer = await rest.call(ctx, path, { timeoutMs: 30_000 });
      return answer.ok ? "" : answer.why.slice(0, 40);
    };
    assertEquals(await call("/whole"), "the answer is longer than 4 MiB");
    assertEquals((await call("/refused")).slice(0, 11), "status 403:");
  });
});

Deno.test("a server that falls silent is given up after the read limit, and not before", async () => {
  await using lab = await Lab.open();
  await using server = pieces(["one"], "wait");
  let came = 0;
  lab.hang = () => came > 0;
  const error = await assertRejects(() =>
    inStage(lab, async (ctx) => {
      const url = `http://127.0.0.1:${server.port}/`;
      using answer = answered(await exchange(ctx, url, LIMITS));
      for await (const _ of answer.body) came++;
    })
  );
  assertEquals((error as Error).message, "nothing has come within 60 s");
  assertEquals(lab.clock.elapsed, 60_000);
});

Deno.test("a server that takes the connection and never answers is given up after the read limit", async () => {
  await using lab = await Lab.open();
  let got = false;
  await using server = tcpStub(async (client) => {
    await client.read(new Uint8Array(4096));
    got = true;
  });
  lab.hang = () => got;
  assertEquals(await send(lab, `http://127.0.0.1:${server.port}/`), {
    ended: "failed",
    message: "no answer within 60 s",
    unreachable: false,
  });
});

Deno.test("a connection that is not there in time is given up after the connect limit", async () => {
  await using lab = await Lab.open();
  // It takes connections, but never says a word of TLS.
  await using server = tcpStub(() => {});
  lab.hang = () => server.clients > 0;
  assertEquals(await send(lab, `https://127.0.0.1:${server.port}/`), {
    ended: "failed",
    message: "no connection within 30 s",
    unreachable: true,
  });
});

Deno.test("a refused connection has sent nothing, so that a request can be repeated", async () => {
  await using lab = await Lab.open();
  const result = await send(lab, `http://127.0.0.1:${closedPort()}/`, { method: "POST" });
  assert(failed(result).unreachable);
  assertStringIncludes(failed(result).message, "ECONNREFUSED");
});

Deno.test("stopping the connector ends a request, and an answer that is being read", async () => {
  for (const read of [false, true]) {
    await using lab = await Lab.open();
    await using server = read ? pieces(["one"], "wait") : tcpStub(() => {});
    const stop = new AbortController();
    await assertRejects(
      () =>
        inStage(lab, async (ctx) => {
          if (!read) until(() => server.clients > 0).then(() => stop.abort(new Stopped("SIGTERM")));
          const url = `http://127.0.0.1:${server.port}/`;
          using answer = answered(await exchange(ctx, url, LIMITS));
          for await (const _ of answer.body) stop.abort(new Stopped("SIGTERM"));
        }, stop.signal),
      Stopped,
    );
  }
});

Deno.test("a form with a file arrives whole, its text and the file's name included", async () => {
  await using lab = await Lab.open();
  const bytes = crypto.getRandomValues(new Uint8Array(60_000));
  const path = join(lab.cwd, 'an "image" ü.bin');
  await Deno.writeFile(path, new Uint8Array([...bytes, ...bytes, ...bytes]));
  let form: FormData | undefined;
  await using server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    async (request) => {
      form = await request.formData();
      return new Response("taken");
    },
  );
  const body = await multipartBody({
    fields: { request: '{"ü": "\\n"}' },
    file: { name: "boot_binary", path },
  });
  const url = `http://127.0.0.1:${server.addr.port}/`;
  assertEquals(await answered(await send(lab, url, { method: "POST", body })).text(), "taken");
  assertEquals(form?.get("request"), '{"ü": "\\n"}');
  const file = form?.get("boot_binary");
  if (!(file instanceof File)) throw new Error(`this is no file: ${file}`);
  assertEquals(decodeURIComponent(file.name), 'an "image" ü.bin');
  assertEquals(new Uint8Array(await file.arrayBuffer()), await Deno.readFile(path));
});

Deno.test("a file is read only as fast as the server takes it", async () => {
  await using lab = await Lab.open();
  await using server = tcpStub(async (client) => {
    await client.read(new Uint8Array(100));
  });
  const piece = new Uint8Array(1024 * 1024);
  let pulled = 0;
  const total = 500;
  const body = {
    type: "application/octet-stream",
    length: total * piece.length,
    *pieces() {
      for (; pulled < total; pulled++) yield piece;
    },
  };
  // As soon as nothing moves any more, the server counts as silent.
  let before = -1;
  lab.hang = () => pulled > 0 && pulled === before || ((before = pulled), false);
  const result = await send(lab, `http://127.0.0.1:${server.port}/`, { method: "POST", body });
  assertEquals(result.ended, "failed");
  assert(pulled < 50, `${pulled} MiB were read`);
});

Deno.test("a server that refuses an upload in the middle of it is heard", async () => {
  await using lab = await Lab.open();
  await using server = tcpStub(async (client) => {
    await client.read(new Uint8Array(100));
    await client.write(utf8("HTTP/1.1 413 Too Large\r\nContent-Length: 7\r\n\r\ntoo big"));
  });
  const piece = new Uint8Array(1024 * 1024);
  const body = {
    type: "application/octet-stream",
    length: 500 * piece.length,
    pieces: () => Array.from({ length: 500 }, () => piece),
  };
  const url = `http://127.0.0.1:${server.port}/`;
  const answer = answered(await send(lab, url, { method: "POST", body }));
  assertEquals([answer.status, answer.ok, await answer.text()], [413, false, "too big"]);
});

Deno.test("a file that changes its length while it is sent is no upload", async () => {
  await using lab = await Lab.open();
  await using server = httpStub(() => new Response("taken"));
  for (const length of [5, 7]) {
    const body = { type: "text/plain", length, pieces: () => [utf8("longer")] };
    const result = await send(lab, server.url, { method: "POST", body });
    assertStringIncludes(failed(result).message, "has changed its length");
  }
  assertEquals(server.requests, []);
});

const SSE: readonly (readonly [name: string, text: string, events: readonly ServerSentEvent[]])[] =
  [
    ["one event", "data: a\n\n", [{ data: "a", id: undefined }]],
    ["several lines of data", "data: a\ndata:b\ndata:\n\n", [{ data: "a\nb\n", id: undefined }]],
    ["only one blank removed", "data:  a \n\n", [{ data: " a ", id: undefined }]],
    ["an id", "id: 7\ndata: a\n\ndata: b\n\n", [
      { data: "a", id: "7" },
      { data: "b", id: undefined },
    ]],
    ["an empty id", "id:\ndata: a\n\n", [{ data: "a", id: "" }]],
    [
      "comments, other fields, and lines without colon",
      ": hi\nevent: x\nretry: 5\nfoo\ndata: a\n\n",
      [
        { data: "a", id: undefined },
      ],
    ],
    ["nothing without data", "id: 5\n\n: beat\n\n\n", []],
    ["nothing without an empty line behind it", "data: a\n\ndata: b\n", [
      { data: "a", id: undefined },
    ]],
    ["CR LF", "id: 1\r\ndata: a\r\ndata: b\r\n\r\n", [{ data: "a\nb", id: "1" }]],
    ["CR", "id: 1\rdata: a\r\r", [{ data: "a", id: "1" }]],
    ["letters beyond ASCII", "data: héllo ☃ 🦕\n\n", [{ data: "héllo ☃ 🦕", id: undefined }]],
    ["a byte order mark", "\ufeffdata: a\n\n", [{ data: "a", id: undefined }]],
  ];

for (const [name, text, events] of SSE) {
  Deno.test(`readEvents() understands ${name}, wherever the stream is cut`, async () => {
    const bytes = utf8(text);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat({ max: bytes.length }), { maxLength: 8 }),
        async (cuts) => {
          const at = [0, ...cuts.sort((a, b) => a - b), bytes.length];
          const parts = at.slice(1).map((to, i) => bytes.subarray(at[i], to));
          assertEquals(await Array.fromAsync(readEvents(ReadableStream.from(parts))), events);
        },
      ),
      { numRuns: 60 },
    );
  });
}

Deno.test("readEvents() keeps of a line without end no more than a megabyte", async () => {
  const line = utf8("x".repeat(900_000));
  const stream = ReadableStream.from([utf8("data: "), line, line, line, utf8("\n\n")]);
  const [event] = await Array.fromAsync(readEvents(stream));
  assert(event !== undefined && event.data.length <= 1024 * 1024);
});

/** What `restService` says to a server with a certificate of an unknown authority. */
async function health(lab: Lab, config: Record<string, unknown>): Promise<unknown> {
  await lab.config({ control_host: "127.0.0.1", ...config });
  return await inStage(lab, async (ctx) => {
    const rest = await restService(ctx);
    return await rest.call(ctx, "/health", { timeoutMs: 3_000 });
  });
}

Deno.test("the control host's certificate is checked, against a file if one is named, or said not to be", async () => {
  await using lab = await Lab.open();
  const made = await certificates(lab.root);
  await using server = Deno.serve({
    port: 0,
    hostname: "127.0.0.1",
    cert: made.good,
    key: made.key,
    onListen() {},
  }, (request) => new Response(request.headers.get("authorization") ?? "nobody"));
  const base = { control_host_scheme: "https", control_host_port: server.addr.port };
  const refused = await health(lab, base);
  assertStringIncludes(JSON.stringify(refused), '"unreachable":false');
  assertStringIncludes(JSON.stringify(refused), "certificate");
  assertEquals(
    await health(lab, { ...base, control_host_ca: made.authority, control_host_token: "t0ken" }),
    { ok: true, body: "Bearer t0ken" },
  );
  assert(!lab.log.join("\n").includes("is not checked"));
  lab.log.length = 0;
  assertEquals(await health(lab, { ...base, control_host_verify_tls: false }), {
    ok: true,
    body: "nobody",
  });
  assertStringIncludes(
    lab.log.join("\n"),
    "The certificate of the control host 127.0.0.1 is not checked",
  );
  assert(!lab.log.join("\n").includes("t0ken"));
});

Deno.test("an expired certificate of the control host is refused", async () => {
  await using lab = await Lab.open();
  const made = await certificates(lab.root);
  await using server = Deno.serve({
    port: 0,
    hostname: "127.0.0.1",
    cert: made.expired,
    key: made.key,
    onListen() {},
  }, () => new Response("taken"));
  const result = await health(lab, {
    control_host_scheme: "https",
    control_host_port: server.addr.port,
    control_host_ca: made.authority,
  });
  // With one that is not, the same configuration works.
  assertStringIncludes(JSON.stringify(result), "certificate");
  assertStringIncludes(JSON.stringify(result), '"unreachable":false');
});

Deno.test("a file of certificates that cannot be read, or has none, is named", async () => {
  for (const [file, why] of [["nonesuch.pem", "No such file"], ["empty.pem", "PEM is expected"]]) {
    await using lab = await Lab.open();
    await lab.write("empty.pem", "");
    const path = join(lab.cwd, file ?? "");
    // The hook is the first that would use them.
    await lab.config({
      control_host: "127.0.0.1",
      control_host_scheme: "https",
      control_host_ca: path,
    });
    await lab.job({});
    const run = await lab.stage("fake_connector", "provision");
    assertEquals(run.code, 1);
    const failure = await lab.failure("provision");
    assertEquals(failure.exception_name, ProvisioningError.name);
    assertStringIncludes(failure.exception_message ?? "", path);
    assertStringIncludes(failure.exception_message ?? "", why ?? "");
  }
});
