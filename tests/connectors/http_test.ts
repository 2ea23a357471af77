/** Small requests: how much of an answer is read. */
import { assertEquals } from "@std/assert";
import { httpClient, type HttpRequest } from "../../connectors/support/http/http.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { httpStub } from "./support/stubs.ts";

const MIB = 1024 * 1024;

/** Asks a server whose answer is that long. */
async function ask(
  { mib, status = 200, isChunked = false }: { mib: number; status?: number; isChunked?: boolean },
  request: Partial<HttpRequest> = {},
) {
  const bytes = new Uint8Array(mib * MIB).fill("y".charCodeAt(0));
  const pieces = [bytes.subarray(0, bytes.length / 2), bytes.subarray(bytes.length / 2)];
  await using server = httpStub(() =>
    new Response(isChunked ? ReadableStream.from(pieces) : bytes, { status })
  );
  const client = httpClient(new FakeClock(), new AbortController().signal);
  return await client.send(server.url, { ...request, timeoutMs: 1000 });
}

for (const isChunked of [false, true]) {
  const how = isChunked ? "in pieces, of unknown length" : "with its length";
  Deno.test(`an answer is read whole, or it is none at all, if it comes ${how}`, async () => {
    const body = "y".repeat(4 * MIB);
    assertEquals(await ask({ mib: 4, isChunked }), {
      ended: "answered",
      status: 200,
      ok: true,
      body,
    });
    assertEquals(await ask({ mib: 5, isChunked }), {
      ended: "failed",
      message: "the answer is longer than 4 MiB",
    });
    assertEquals(await ask({ mib: 5, isChunked }, { maxBytes: 5 * MIB }), {
      ended: "answered",
      status: 200,
      ok: true,
      body: "y".repeat(5 * MIB),
    });
  });

  Deno.test(`the beginning of an answer is enough for a refusal, or if nothing else is wanted (it comes ${how})`, async () => {
    for (const [status, request] of [[200, { onlyBeginning: true }], [404, {}]] as const) {
      const answer = await ask({ mib: 50, status, isChunked }, request);
      assertEquals(answer.ended === "answered" && answer.status, status);
    }
  });
}
