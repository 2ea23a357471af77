import { assert, assertEquals, assertRejects } from "@std/assert";
import { ProvisioningError, Stopped } from "../../connectors/support/errors.ts";
import type { ConnectorContext } from "../../connectors/context.ts";
import { serveOnce } from "../../connectors/support/http/file_server.ts";
import { fileStream } from "../../connectors/support/image/image.ts";
import { PERMISSIONS } from "../../lib/cli/command.ts";
import { socketsAt } from "../support/listeners.ts";
import { after, moduleAt, runScript } from "../support/script.ts";
import { testWithTools } from "../support/sshd.ts";
import { inStage } from "./support/context.ts";
import { Lab } from "./support/lab.ts";
import { closedPort, tcpStub, until } from "./support/stubs.ts";

const IMAGE = Uint8Array.from({ length: 3_000_000 }, (_, i) => (i * 7919) % 251);

async function fetchRaw(address: { address: string; port: number }): Promise<Uint8Array> {
  using client = await Deno.connect({ hostname: address.address, port: address.port });
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for await (const part of client.readable) parts.push(part);
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** Serves a stream to a device that answers under this address, or host name. */
async function serveTo(
  host: string,
  { ctx, body, listens = "127.0.0.1", controlHost }: {
    ctx: ConnectorContext;
    body: ReadableStream<Uint8Array>;
    listens?: string;
    controlHost?: string;
  },
) {
  await using device = tcpStub(() => {}, listens);
  return await serveOnce(ctx, { body, device: { host, port: device.port }, controlHost });
}

Deno.test("a file is served once, to the device, on the network that the device is on", async () => {
  await using lab = await Lab.open();
  await Deno.writeFile(`${lab.cwd}/i.img`, IMAGE);
  await inStage(lab, async (ctx) => {
    await using server = await serveTo("127.0.0.1", {
      ctx,
      body: await fileStream(`${lab.cwd}/i.img`),
    });
    assertEquals(server.address, "127.0.0.1");
    const sent = server.sent();
    assertEquals(await fetchRaw(server), IMAGE);
    assertEquals(await sent, IMAGE.length);
    assertEquals((await fetchRaw(server).catch(() => new Uint8Array())).length, 0);
  });
});

testWithTools("the nc of a device gets the file whole, and ends with it", ["busybox"], async () => {
  await using lab = await Lab.open();
  await Deno.writeFile(`${lab.cwd}/i.img`, IMAGE);
  await inStage(lab, async (ctx) => {
    await using server = await serveTo("127.0.0.1", {
      ctx,
      body: await fileStream(`${lab.cwd}/i.img`),
    });
    const sent = server.sent();
    sent.catch(() => {});
    // As the imager of a device does it.
    const { stdout } = await new Deno.Command("busybox", {
      args: ["nc", server.address, `${server.port}`],
      stdin: "null",
    }).output();
    assertEquals(stdout.length, IMAGE.length);
    assertEquals(stdout.findIndex((byte, at) => byte !== IMAGE[at]), -1);
    assertEquals(await sent, IMAGE.length);
  });
});

Deno.test("only the device gets the file", async () => {
  await using lab = await Lab.open();
  await Deno.writeFile(`${lab.cwd}/i.img`, IMAGE);
  await inStage(lab, async (ctx) => {
    // The client's address will be 127.0.0.1, the device is another one on the same network.
    await using server = await serveTo("127.0.0.9", {
      ctx,
      listens: "127.0.0.9",
      body: await fileStream(`${lab.cwd}/i.img`),
    });
    assertEquals((await fetchRaw(server).catch(() => new Uint8Array())).length, 0);
    lab.hang = () => true;
    await assertRejects(
      () => server.sent(),
      ProvisioningError,
      "The file was not requested within 120 s",
    );
  });
  assert(lab.log.some((line) => line.includes("127.0.0.1 asked for a file that is not for it")));
});

Deno.test("the control host of a device gets the file as well", async () => {
  await using lab = await Lab.open();
  await inStage(lab, async (ctx) => {
    for (
      const [host, controlHost] of [
        ["127.0.0.9", "127.0.0.1"],
        ["127.0.0.9", "localhost"],
        // Without an address it keeps nobody else from the file.
        ["127.0.0.1", "nowhere.invalid"],
      ] as const
    ) {
      const body = new Blob([IMAGE]).stream();
      await using server = await serveTo(host, { ctx, body, listens: host, controlHost });
      const sent = server.sent();
      assertEquals(await fetchRaw(server), IMAGE);
      assertEquals(await sent, IMAGE.length);
    }
  });
  assert(lab.log.some((line) => line.includes("Cannot find the address of 'nowhere.invalid'")));
});

Deno.test("a client that goes away, or stops reading, has not got the file", async () => {
  await using lab = await Lab.open();
  await Deno.writeFile(`${lab.cwd}/i.img`, new Uint8Array(64 * 1024 * 1024));
  for (const why of ["leaves", "stops"]) {
    await inStage(lab, async (ctx) => {
      await using server = await serveTo("localhost", {
        ctx,
        body: await fileStream(`${lab.cwd}/i.img`),
      });
      const sent = server.sent();
      using client = await Deno.connect({ hostname: server.address, port: server.port });
      await client.read(new Uint8Array(1000));
      if (why === "leaves") client.close();
      else lab.hang = () => true;
      await assertRejects(() => sent, ProvisioningError, "bytes were sent: ");
    }).catch((error) => {
      // `using` closes what has been closed.
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    });
  }
});

Deno.test("a stage that is stopped while it serves a file lets go of the client and of the port", async () => {
  await using lab = await Lab.open();
  await Deno.writeFile(`${lab.cwd}/i.img`, new Uint8Array(64 * 1024 * 1024));
  for (const isRead of [false, true]) {
    const stop = new AbortController();
    let port = 0;
    let sockets: string[] = [];
    const serving = inStage(lab, async (ctx) => {
      await using server = await serveTo("127.0.0.1", {
        ctx,
        body: await fileStream(`${lab.cwd}/i.img`),
      });
      port = server.port;
      sockets = await socketsAt(port);
      const sent = server.sent();
      sent.catch(() => {});
      using client = isRead ? await Deno.connect({ hostname: "127.0.0.1", port }) : undefined;
      await client?.read(new Uint8Array(1000));
      stop.abort(new Stopped("SIGTERM"));
      await sent;
    }, stop.signal);
    await assertRejects(() => serving, Stopped, "stopped by SIGTERM");
    // Not tried by connecting: somebody else may have the port by now.
    assertEquals(sockets.length, 1);
    // The runtime closes it some turns of its loop after it has said so.
    await until(async () => {
      const still = await socketsAt(port);
      return !sockets.some((socket) => still.includes(socket));
    });
  }
});

Deno.test("a device that is known by an IPv6 address is served under one", async () => {
  await using lab = await Lab.open();
  await inStage(lab, async (ctx) => {
    const body = new Blob([IMAGE]).stream();
    // Not as the kernel writes it.
    await using server = await serveTo("0:0::1", { ctx, body, listens: "::1" });
    assertEquals(server.address, "::1");
    const sent = server.sent();
    assertEquals(await fetchRaw(server), IMAGE);
    assertEquals(await sent, IMAGE.length);
  });
});

Deno.test("a device that does not answer cannot be served", async () => {
  await using lab = await Lab.open();
  await inStage(lab, async (ctx) => {
    const device = { host: "127.0.0.1", port: closedPort() };
    await assertRejects(
      () => serveOnce(ctx, { body: new Blob([IMAGE]).stream(), device }),
      ProvisioningError,
      "Cannot find out under which address '127.0.0.1' reaches this host: ",
    );
  });
});

/** A network of its own, in which 10.1.1.0/24 is behind the route from 192.0.2.2. */
const ROUTED = [
  ...["unshare", "--net", ...(Deno.uid() === 0 ? [] : ["--user", "--map-root-user"])],
  ...after(
    "busybox ip link set lo up && busybox ip addr add 192.0.2.2/24 dev lo && " +
      "busybox ip route add local 10.1.1.0/24 dev lo src 192.0.2.2",
  ),
];

testWithTools(
  "a device on another network is served, with no more permissions than the program has",
  ["busybox", "unshare"],
  async () => {
    const script = `
import { serveOnce } from ${moduleAt("connectors/support/http/file_server.ts")};
import { systemClock } from ${moduleAt("lib/clock.ts")};
using device = Deno.listen({ hostname: "10.1.1.9", port: 0 });
const ctx = { limits: systemClock, log: console, signal: new AbortController().signal };
await using server = await serveOnce(ctx, {
  body: new Blob(["x"]).stream(),
  device: { host: "10.1.1.9", port: device.addr.port },
});
console.log(server.address);`;
    const said = await runScript(script, { through: ROUTED, permissions: PERMISSIONS });
    assertEquals(said, "192.0.2.2\n");
  },
);
