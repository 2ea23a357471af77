/** Servers on loopback that stand for control hosts, image servers and serial servers. */

/** A request that a stub got. */
export interface StubRequest {
  readonly method: string;
  readonly path: string;
  readonly body: string;
  readonly contentType: string | null;
}

/** An HTTP server with the requests that it got. */
export interface HttpStub extends AsyncDisposable {
  readonly port: number;
  readonly url: string;
  readonly requests: StubRequest[];
}

/** Starts an HTTP server. */
export function httpStub(
  answer: (request: StubRequest, raw: Request) => Response | Promise<Response>,
): HttpStub {
  const requests: StubRequest[] = [];
  const server = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    async (raw) => {
      const request = {
        method: raw.method,
        path: new URL(raw.url).pathname,
        body: await raw.text(),
        contentType: raw.headers.get("content-type"),
      };
      requests.push(request);
      return await answer(request, raw);
    },
  );
  const { port } = server.addr;
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    requests,
    [Symbol.asyncDispose]: () => server.shutdown(),
  };
}

/**
 * A port of loopback that nobody listens on. No service is registered for it, and it is below those
 * that the kernel gives to whoever asks for any: a test that runs beside this one cannot get it.
 */
export function closedPort(): number {
  return 1022;
}

/** A TCP server. */
export interface TcpStub extends AsyncDisposable {
  readonly port: number;
  /** How many clients have come. */
  readonly clients: number;
}

/** Starts a TCP server; `serve` is given each client, and its number from 1. */
export function tcpStub(
  serve: (client: Deno.TcpConn, n: number) => void | Promise<void>,
  hostname = "127.0.0.1",
): TcpStub {
  const listener = Deno.listen({ hostname, port: 0 });
  const open = new Set<Deno.TcpConn>();
  let clients = 0;
  const done = (async () => {
    for await (const client of listener) {
      open.add(client);
      clients++;
      await serve(client, clients);
    }
  })().catch(() => {});
  return {
    port: (listener.addr as Deno.NetAddr).port,
    get clients() {
      return clients;
    },
    async [Symbol.asyncDispose]() {
      listener.close();
      for (const client of open) {
        try {
          client.close();
        } catch {
          // The server closed it itself.
        }
      }
      await done;
    },
  };
}

/** What is sent, byte for byte. */
export interface RawAnswer {
  readonly head: readonly string[];
  readonly body: Uint8Array;
}

/**
 * Starts an HTTP server whose connections end after each answer, be it complete or not.
 *
 * @param answer is given the head of the request; the first line of its `head` is the status line.
 */
export function rawHttpStub(
  answer: (head: string) => RawAnswer | Promise<RawAnswer>,
): TcpStub {
  return tcpStub(async (client) => {
    let request = "";
    const buffer = new Uint8Array(4096);
    while (!request.includes("\r\n\r\n")) {
      const read = await client.read(buffer);
      if (read === null) return client.close();
      request += new TextDecoder().decode(buffer.subarray(0, read));
    }
    const { head, body } = await answer(request);
    const all = new Uint8Array([
      ...new TextEncoder().encode(`${head.join("\r\n")}\r\n\r\n`),
      ...body,
    ]);
    for (let at = 0; at < all.length;) at += await client.write(all.subarray(at));
    client.close();
  });
}

/** Waits until something is so; gives up after a long time, for the failure to be seen. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 2_000; i++) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error("What the test waited for has not come about");
}
