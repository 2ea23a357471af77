import { assert, assertEquals, assertRejects } from "@std/assert";
import { nodeUpload } from "../../lib/server/node_http.ts";
import { Outgoing } from "../../lib/server/request_body.ts";
import { recordingLog } from "../support/recording_log.ts";
import { connect, failed, JOB_ID, serve, serveRaw, until, write } from "./support/http.ts";

function send(address: string, options: { text: string; length?: number; signal?: AbortSignal }) {
  const body = new Outgoing(new Blob([options.text]).stream(), () => {});
  return nodeUpload({ length: options.length, log: recordingLog() })({
    url: new URL(`${address}/upload`),
    headers: new Headers({ "Content-Type": "text/plain" }),
    body,
    signal: options.signal ?? new AbortController().signal,
  });
}

Deno.test("an upload with its length arrives whole, and the answer with its message and Retry-After", async () => {
  await using server = serve(() =>
    new Response('{"message": "later"}', { status: 503, headers: { "Retry-After": "9" } })
  );
  const response = await send(server.address, { text: "body", length: 4 });
  assertEquals([response.status, response.headers.get("retry-after")], [503, "9"]);
  assertEquals(await response.text(), '{"message": "later"}');
  assertEquals(server.seen[0]?.body, "body");
  assertEquals(server.seen[0]?.headers.get("content-length"), "4");
});

Deno.test("an upload that is not as long as was said is given up rather than cut or mixed up", async () => {
  for (const length of [2, 9]) {
    await using server = serveRaw(() => Promise.resolve());
    await assertRejects(() => send(server.address, { text: "body", length }), Error, "has changed");
  }
});

Deno.test("an upload with its length ends at once when its caller gives up", async () => {
  await using server = serveRaw(async (connection, request) => {
    if (!/^transfer-encoding: chunked/im.test(request)) return;
    await write(
      connection,
      "HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    connection.closeWrite();
  });
  using link = connect(server);
  const controller = new AbortController();
  const upload = { open: () => new Blob(["archive"]).stream() };
  const answer = link.client.postArtifact(JOB_ID, upload, controller.signal);
  await until(() => server.count === 2);
  controller.abort();
  assertEquals(failed(await answer).kind, "aborted");
  assertEquals(link.clock.sleepers, 0);
});

Deno.test("an upload with its length to a server that is not there is an error that says so", async () => {
  const listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  const address = `http://127.0.0.1:${listener.addr.port}`;
  listener.close();
  const error = await assertRejects(() => send(address, { text: "x" }), Error);
  assert(error.message.includes("ECONNREFUSED"), error.message);
});
