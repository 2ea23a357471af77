import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { Upload } from "../../lib/server/api.ts";
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

/** An upload of so many pieces of 64 KiB that counts what was taken of it. */
function pieces(count: number) {
  const state = { opened: 0, taken: 0, cancelled: 0 };
  const upload: Upload = {
    open() {
      state.opened += 1;
      let left = count;
      return new ReadableStream({
        pull(controller) {
          if (left-- === 0) return controller.close();
          state.taken += 1;
          controller.enqueue(new Uint8Array(65_536).fill(left));
        },
        cancel: () => void state.cancelled++,
      }, { highWaterMark: 0 });
    },
  };
  return Object.assign(upload, { state });
}

function text(content: string): Upload {
  return { open: () => new Blob([content]).stream() };
}

Deno.test("an artifact arrives as the form field that the server expects, chunked", async () => {
  let received: FormData | undefined;
  let headers = new Headers();
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (request) => {
    headers = request.headers;
    received = await request.formData();
    return json({});
  });
  using link = connect({ address: `http://127.0.0.1:${server.addr.port}` });
  succeeded(await link.client.postArtifact(JOB_ID, text("a\r\n--b\0c")));
  const file = received?.get("file");
  if (!(file instanceof File)) throw new Error("There is no file in the form");
  assertEquals([file.name, file.type, await file.text()], [
    "file",
    "application/x-gzip",
    "a\r\n--b\0c",
  ]);
  assertEquals([...received?.keys() ?? []], ["file"]);
  assertEquals(headers.get("transfer-encoding"), "chunked");
  await server.shutdown();
});

Deno.test("an artifact is taken from its source no faster than the server takes it", async () => {
  await using server = serveRaw(() => Promise.resolve());
  using link = connect(server);
  const { client } = link;
  const upload = pieces(10_000);
  const controller = new AbortController();
  const answer = client.postArtifact(JOB_ID, upload, controller.signal);
  // Until the buffers of the connection are full and nothing moves any more.
  let before = -1;
  while (upload.state.taken !== before) {
    before = upload.state.taken;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert(upload.state.taken < 500, `${upload.state.taken} pieces were taken`);
  controller.abort();
  assertEquals(failed(await answer).kind, "aborted");
  assertEquals(upload.state.cancelled, 1);
});

for (const status of [411, 501]) {
  Deno.test(`a server that answers ${status} to a chunked upload gets it with its length, the next one at once`, async () => {
    await using server = serve(({ headers }) =>
      headers.has("content-length") ? json({}) : new Response("Length Required", { status })
    );
    using link = connect(server);
    const { client } = link;
    succeeded(await client.postArtifact(JOB_ID, pieces(5)));
    assertEquals(server.seen.length, 2);
    const [, second] = server.seen;
    assertEquals(Number(second?.headers.get("content-length")), second?.body.length);
    assertStringIncludes(second?.body ?? "", 'name="file"; filename="file"');
    succeeded(await client.postArtifact(JOB_ID, text("again")));
    assertEquals(server.seen.length, 3);
  });
}

Deno.test("an answer that comes before the upload has ended is the answer", async () => {
  const answers = [
    [413, "{}", "refused"],
    [413, "<p>", "foreign"],
    [403, "{}", "forbidden"],
  ] as const;
  for (const [status, body, kind] of answers) {
    await using server = serveRaw(async (connection) => {
      const { length } = body;
      await write(connection, `HTTP/1.1 ${status} No\r\nContent-Length: ${length}\r\n\r\n${body}`);
    });
    using link = connect(server);
    const { client } = link;
    const upload = pieces(2000);
    const failure = failed(await client.postArtifact(JOB_ID, upload));
    assertEquals([failure.kind, failure.status], [kind, status]);
    assert(upload.state.taken < 2000);
    assertEquals(upload.state.cancelled, upload.state.opened);
  }
});

Deno.test("an early answer counts also when the server closes the connection on the rest of the upload", async () => {
  await using server = serveRaw(async (connection) => {
    await write(
      connection,
      "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 18\r\n\r\n" +
        '{"message": "big"}',
    );
    connection.close();
  });
  using link = connect(server);
  const { client } = link;
  const upload = pieces(2000);
  const failure = failed(await client.postArtifact(JOB_ID, upload));
  assertEquals([failure.kind, failure.status], ["refused", 413]);
  assertStringIncludes(failure.message, "413 Too Large: big");
  assertEquals(upload.state.cancelled, upload.state.opened);
});

Deno.test("a connection that breaks during an upload is unreachable", async () => {
  await using server = serveRaw((connection) => Promise.resolve(connection.close()));
  using link = connect(server);
  const { client } = link;
  const failure = failed(await client.postArtifact(JOB_ID, pieces(2000)));
  assertEquals(failure.kind, "unreachable");
  assertStringIncludes(failure.message, "of the upload");
});

Deno.test("what the source of an upload throws is nobody's answer", async () => {
  await using server = serve(() => json({}));
  using link = connect(server);
  const { client } = link;
  const upload: Upload = {
    open: () => new ReadableStream({ pull: () => Promise.reject(new Error("disk is gone")) }),
  };
  await assertRejects(() => client.postArtifact(JOB_ID, upload), Error, "disk is gone");
});

Deno.test("an upload may take hours as long as it moves, and is given up after 600 s without a byte", async () => {
  await using server = serveRaw(() => Promise.resolve());
  using link = connect(server);
  const { client, clock } = link;
  let feed: (piece: string) => void = () => {};
  const upload: Upload = {
    open: () =>
      new ReadableStream({
        start(controller) {
          feed = (piece) => controller.enqueue(new TextEncoder().encode(piece));
        },
      }),
  };
  let ended = false;
  const answer = client.postArtifact(JOB_ID, upload).finally(() => ended = true);
  await until(() => server.count > 0);
  for (let hour = 0; hour < 20; hour++) {
    await clock.noticed(() => Promise.resolve(feed("piece")));
    await clock.advance(590_000);
    assert(!ended);
  }
  await clock.advance(10_000);
  const failure = failed(await answer);
  assertEquals(failure.kind, "unreachable");
  assertStringIncludes(failure.message, "nothing moved for 600 s");
});

function some<T>(value: T | null): T {
  if (value === null) throw new Error("There is nothing");
  return value;
}

async function readText(stream: ReadableStream<Uint8Array> | null): Promise<string> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  for await (const chunk of some(stream)) chunks.push(Uint8Array.from(chunk));
  return await new Blob(chunks).text();
}

Deno.test("attachments come as a stream, and 204 means none", async () => {
  let reply = () => new Response("archive", { headers: { "Content-Type": "application/gzip" } });
  await using server = serve(() => reply());
  using link = connect(server);
  const { client, clock } = link;
  assertEquals(
    await readText(some(succeeded(await client.getAttachments(JOB_ID))).stream),
    "archive",
  );
  assertEquals(server.seen[0]?.path, `/v1/job/${JOB_ID}/attachments`);
  reply = () => new Response(null, { status: 204 });
  assertEquals(await client.getAttachments(JOB_ID), { ok: true, value: null });
  assertEquals(clock.sleepers, 0);
});

Deno.test("attachments that are cut off are an error for who reads them, in one line", async () => {
  await using server = serveRaw(async (connection) => {
    await write(connection, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhalf");
    connection.closeWrite();
  });
  using link = connect(server);
  const { client, clock } = link;
  const { stream, length } = some(succeeded(await client.getAttachments(JOB_ID)));
  assertEquals(length, 500);
  await assertRejects(() => readText(stream), Error, "cut off after 4 bytes");
  assertEquals(clock.sleepers, 0);
});

Deno.test("attachments that stop coming are given up after 600 s, however slow their reader is", async () => {
  await using server = serveSlowly("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n\x1farchive");
  using link = connect(server);
  const { client, clock } = link;
  const { stream } = some(succeeded(await client.getAttachments(JOB_ID)));
  const reader = stream.getReader();
  assertEquals((await reader.read()).value?.length, 8);
  // Unpacking to a slow disk: nobody asks the server for more.
  await clock.advance(2_000_000);
  for (let i = 0; i < 3; i++) {
    const next = reader.read();
    await until(() => server.count > 0);
    await server.send("piece");
    assertEquals((await next).value?.length, 5);
    await clock.advance(590_000);
  }
  const last = assertRejects(() => reader.read(), Error, "nothing moved for 600 s");
  await clock.advance(600_000);
  await last;
});

Deno.test("the download of attachments that are no longer wanted stops", async () => {
  let stopped = false;
  await using server = serve(() =>
    new Response(
      new ReadableStream({
        pull: (controller) => controller.enqueue(new Uint8Array(65_536)),
        cancel: () => void (stopped = true),
      }),
    )
  );
  using link = connect(server);
  const { client, clock } = link;
  const { stream } = some(succeeded(await client.getAttachments(JOB_ID)));
  const reader = stream.getReader();
  await reader.read();
  await reader.cancel();
  await until(() => stopped);
  assertEquals(clock.sleepers, 0);
});
