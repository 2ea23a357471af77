import { assertEquals, assertStringIncludes } from "@std/assert";
import * as fc from "fast-check";
import {
  startSerialLogger,
  telnetStripper,
} from "../../connectors/support/serial/serial_logger.ts";
import { inStage } from "./support/context.ts";
import { Lab } from "./support/lab.ts";
import { tcpStub, until } from "./support/stubs.ts";

Deno.test("the telnet negotiation is taken out, wherever the stream is cut", () => {
  const stream = [
    ...[0x61, 255, 251, 1, 0x62], // WILL
    ...[255, 250, 24, 1, 255, 255, 240, 255, 240, 0x63], // a subnegotiation with IAC in it
    ...[255, 255, 0x64], // an escaped 255
    ...[255, 241, 0x65], // NOP
  ];
  fc.assert(fc.property(fc.array(fc.nat(stream.length), { maxLength: 6 }), (cuts) => {
    const strip = telnetStripper();
    const ends = [...new Set([...cuts, stream.length])].sort((a, b) => a - b);
    const out: number[] = [];
    let start = 0;
    for (const end of ends) {
      out.push(...strip(new Uint8Array(stream.slice(start, end))));
      start = end;
    }
    assertEquals(out, [0x61, 0x62, 0x63, 255, 0x64, 0x65]);
  }));
});

Deno.test("a serial server that speaks telnet leaves only its text in the log", async () => {
  await using lab = await Lab.open();
  await using serial = tcpStub(async (client) => {
    await client.write(new Uint8Array([255, 251, 1, 0x6f, 0x6b]));
  });
  await lab.config({
    serial_host: "localhost",
    serial_port: String(serial.port),
    serial_protocol: "telnet",
  });
  await inStage(lab, () => until(async () => await lab.read("provision-serial.log") === "ok"));
});

Deno.test("a serial log that has become too long is cut off, and says so", async () => {
  await using lab = await Lab.open();
  await using serial = tcpStub(async (client) => {
    await client.write(new TextEncoder().encode("0123456789"));
    await client.write(new TextEncoder().encode("more"));
  });
  await lab.config({ serial_host: "127.0.0.1", serial_port: serial.port });
  await inStage(lab, async (ctx) => {
    await using _log = await startSerialLogger(ctx, "short.log", { maxBytes: 8 });
    await until(async () => (await lab.read("short.log")).includes("cut off"));
  });
  assertEquals(await lab.read("short.log"), "01234567\n[the serial log is cut off here]\n");
});

Deno.test("what the device said just before the stage ended is in the log", async () => {
  await using lab = await Lab.open();
  await using serial = tcpStub(() => {});
  await lab.config({ serial_host: "127.0.0.1", serial_port: serial.port });
  await using answering = tcpStub(async (client) => {
    // Says something only when the logger hangs up.
    while (await client.read(new Uint8Array(16)) !== null);
    await client.write(new TextEncoder().encode("bye"));
    client.close();
  });
  await lab.config({ serial_host: "127.0.0.1", serial_port: answering.port });
  await inStage(lab, () => until(() => answering.clients === 1));
  assertEquals(await lab.read("provision-serial.log"), "bye");
});

Deno.test("a serial server that refuses is complained about once, not every 30 s", async () => {
  await using lab = await Lab.open();
  await lab.config({ serial_host: "127.0.0.1", serial_port: 1 });
  await inStage(lab, (ctx) => until(() => ctx.clock.monotonic() >= 90_000));
  const complaints = lab.log.filter((line) => line.includes("no connection to 127.0.0.1:1"));
  assertEquals(complaints.length, 1);
  assertStringIncludes(complaints[0] ?? "", "trying again every 30 s");
});
