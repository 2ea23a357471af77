import { assert, assertEquals, assertRejects } from "@std/assert";
import { ProvisioningError, Stopped } from "../../connectors/support/errors.ts";
import { localAddressFor, serveOnce } from "../../connectors/support/http/file_server.ts";
import { fileStream } from "../../connectors/support/image/image.ts";
import { socketsAt } from "../support/listeners.ts";
import { testWithTools } from "../support/sshd.ts";
import { inStage } from "./support/context.ts";
import { Lab } from "./support/lab.ts";
import { until } from "./support/stubs.ts";

const IMAGE = Uint8Array.from({ length: 3_000_000 }, (_, i) => (i * 7919) % 251);

async function fetchRaw(address: { address: string; port: number }): Promise<Uint8Array> {
  using client = await Deno.connect({ hostname: address.address, port: address.port });
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for await (const part of client.readable) parts.push(part);
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

Deno.test("a file is served once, to the device, on the network that the device is on", async () => {
  await using lab = await Lab.open();
  await Deno.writeFile(`${lab.cwd}/i.img`, IMAGE);
  await inStage(lab, async (ctx) => {
    await using server = await serveOnce(ctx, {
      body: await fileStream(`${lab.cwd}/i.img`),
      clients: ["127.0.0.1"],
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
    await using server = await serveOnce(ctx, {
      body: await fileStream(`${lab.cwd}/i.img`),
      clients: ["127.0.0.1"],
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
    await using server = await serveOnce(ctx, {
      body: await fileStream(`${lab.cwd}/i.img`),
      clients: ["127.0.0.9"],
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

Deno.test("a client that goes away, or stops reading, has not got the file", async () => {
  await using lab = await Lab.open();
  await Deno.writeFile(`${lab.cwd}/i.img`, new Uint8Array(64 * 1024 * 1024));
  for (const why of ["leaves", "stops"]) {
    await inStage(lab, async (ctx) => {
      await using server = await serveOnce(ctx, {
        body: await fileStream(`${lab.cwd}/i.img`),
        clients: ["localhost"],
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
      await using server = await serveOnce(ctx, {
        body: await fileStream(`${lab.cwd}/i.img`),
        clients: ["127.0.0.1"],
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

Deno.test("the address towards a device is that of its network, else that of the best route", () => {
  const addresses = [
    { name: "lo", address: "127.0.0.1", netmask: "255.0.0.0" },
    { name: "eth0", address: "10.0.0.5", netmask: "255.255.0.0" },
    { name: "eth1", address: "10.0.7.1", netmask: "255.255.255.0" },
    { name: "eth1", address: "fe80::1", netmask: "ffff:ffff:ffff:ffff::" },
    { name: "wan", address: "203.0.113.9", netmask: "255.255.255.240" },
  ];
  const routes = `Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
wan 00000000 0171CB00 0003 0 0 100 00000000 0 0 0
eth0 00000000 0100000A 0003 0 0 600 00000000 0 0 0
eth1 0000A8C0 FE07000A 0003 0 0 0 0000FFFF 0 0 0
`;
  for (
    const [target, own] of [
      ["127.0.0.9", "127.0.0.1"],
      ["10.0.7.40", "10.0.7.1"],
      ["10.0.8.40", "10.0.0.5"],
      ["192.168.3.4", "10.0.7.1"],
      ["8.8.8.8", "203.0.113.9"],
      ["fe80::2", undefined],
    ] as const
  ) assertEquals(localAddressFor(target, { addresses, routes }), own, target);
  assertEquals(localAddressFor("8.8.8.8", { addresses, routes: "" }), undefined);
});
