import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { download, type Downloaded } from "../../connectors/support/http/download.ts";
import { ProvisioningError, Stopped } from "../../connectors/support/errors.ts";
import type { Task } from "../../lib/progress.ts";
import { inStage } from "./support/context.ts";
import { Lab } from "./support/lab.ts";
import { freePort } from "../support/free_port.ts";
import { httpStub, rawHttpStub, type TcpStub, tcpStub } from "./support/stubs.ts";

const IMAGE = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 251);
const SHA256 = createHash("sha256").update(IMAGE).digest("hex");
const OTHER_SHA256 = "0".repeat(64);

function get(lab: Lab, url: string, sha256?: string): Promise<Downloaded> {
  return inStage(lab, (ctx) => download(ctx, { url, to: "i.img", sha256 }));
}

async function assertWhole(lab: Lab): Promise<void> {
  assertEquals(await Deno.readFile(join(lab.cwd, "i.img")), IMAGE);
  assert(!await lab.has("i.img.part"));
}

Deno.test("a file is downloaded whole, by way of a redirect, and its progress is logged", async () => {
  await using lab = await Lab.open();
  await using server = httpStub(({ path }) =>
    path === "/moved"
      ? new Response(null, { status: 302, headers: { location: "/i.img?x=1" } })
      : new Response(IMAGE)
  );
  const result = await get(lab, `${server.url}/moved`, SHA256.toUpperCase());
  assertEquals(result, { path: join(lab.cwd, "i.img"), size: IMAGE.length, sha256: SHA256 });
  await assertWhole(lab);
  assert(lab.log.some((line) => /Downloading i\.img: \d+ % of 0\.3 MB/.test(line)));
});

Deno.test("where a person watches, a download's progress is shown there and not logged", async () => {
  await using lab = await Lab.open();
  await using server = httpStub(() => new Response(IMAGE));
  const shown: (string | number)[] = [];
  const progress = {
    begin: ({ what, total }: Task) => {
      shown.push(`${what} ${total}`);
      return { at: (bytes: number) => shown.push(bytes), end: () => shown.push("end") };
    },
  };
  await inStage(
    lab,
    (ctx) => download({ ...ctx, progress }, { url: `${server.url}/i.img`, to: "i.img" }),
  );
  assertEquals([shown[0], ...shown.slice(-2)], ["Downloading i.img 300000", 300_000, "end"]);
  assertEquals(lab.log.filter((line) => line.includes(" % of ")), []);
});

/** A server each of whose answers breaks off after so many bytes of what is asked for. */
function breakingServer(bytes: number, onRequest: (request: string) => void): TcpStub {
  return rawHttpStub((request) => {
    onRequest(request);
    const start = Number(/range: bytes=(\d+)-/i.exec(request)?.[1] ?? 0);
    return {
      head: [
        start > 0 ? "HTTP/1.1 206 Partial Content" : "HTTP/1.1 200 OK",
        `content-length: ${IMAGE.length - start}`,
        ...(start > 0 ? [`content-range: bytes ${start}-299999/300000`] : []),
        'etag: "v1"',
      ],
      body: IMAGE.slice(start, start + bytes),
    };
  });
}

Deno.test("a transfer that breaks off goes on where it was", async () => {
  await using lab = await Lab.open();
  const requests: string[] = [];
  await using server = breakingServer(100_000, (request) => {
    requests.push(request);
  });
  await get(lab, `http://127.0.0.1:${server.port}/`, SHA256);
  await assertWhole(lab);
  assertEquals(requests.map((head) => /range: (bytes=\d+-)/i.exec(head)?.[1]), [
    undefined,
    "bytes=100000-",
    "bytes=200000-",
  ]);
  assert(/if-range: "v1"/i.test(requests[1] ?? ""));
});

Deno.test("a server that cannot go on in the middle sends all of it again", async () => {
  await using lab = await Lab.open();
  let requests = 0;
  await using server = rawHttpStub(() => ({
    head: ["HTTP/1.1 200 OK", `content-length: ${IMAGE.length}`],
    body: ++requests === 1 ? new Uint8Array(1000) : IMAGE,
  }));
  await get(lab, `http://127.0.0.1:${server.port}/`, SHA256);
  await assertWhole(lab);
});

Deno.test("three attempts, and then the last reason is given", async () => {
  await using lab = await Lab.open();
  await using server = httpStub(() => new Response("busy", { status: 503 }));
  await assertRejects(
    () => get(lab, `${server.url}/i.img`),
    ProvisioningError,
    `Cannot download ${server.url}/i.img: the server answered with status 503`,
  );
  assertEquals(server.requests.length, 3);
  assert(!await lab.has("i.img") && !await lab.has("i.img.part"));
});

Deno.test("a file that is not there is not asked for twice", async () => {
  await using lab = await Lab.open();
  await using server = httpStub(() => new Response("", { status: 404 }));
  await assertRejects(() => get(lab, server.url), ProvisioningError, "status 404");
  assertEquals(server.requests.length, 1);
});

Deno.test("a wrong checksum is an error, wherever the right one was given", async () => {
  await using lab = await Lab.open();
  await using server = httpStub(() => new Response(IMAGE));
  await assertRejects(
    () => get(lab, server.url, OTHER_SHA256),
    ProvisioningError,
    `has the checksum ${SHA256}, expected ${OTHER_SHA256}`,
  );
  await assertRejects(() => get(lab, `${server.url}#sha256=${OTHER_SHA256}`), ProvisioningError);
  await assertRejects(
    () => get(lab, `${server.url}#sha256=12`),
    ProvisioningError,
    "64 hex digits",
  );
  assert(!await lab.has("i.img") && !await lab.has("i.img.part"));
  await get(lab, `${server.url}#sha256=${SHA256}`);
  await assertWhole(lab);
});

Deno.test("with verify_images the checksum comes from the SHA256SUMS beside the file", async () => {
  await using lab = await Lab.open();
  let sums = `${OTHER_SHA256} *other.img\n${OTHER_SHA256} *i.img\n`;
  await using server = httpStub(({ path }) =>
    path === "/dir/SHA256SUMS"
      ? new Response(sums, { status: sums === "" ? 404 : 200 })
      : new Response(IMAGE)
  );
  await lab.config({ verify_images: true });
  const url = `${server.url}/dir/i.img`;
  await assertRejects(() => get(lab, url), ProvisioningError, `expected ${OTHER_SHA256}`);
  sums = `${SHA256}  i.img\n`;
  await get(lab, url);
  assertStringIncludes(lab.log.join("\n"), "checksum right");
  sums = "";
  await get(lab, url);
  assertStringIncludes(lab.log.join("\n"), "is not verified");
});

Deno.test("URLs of other kinds are refused, file: ones unless the configuration allows them", async () => {
  await using lab = await Lab.open();
  await lab.write("source.img", "on this host");
  const url = `file://${lab.cwd}/source.img`;
  for (const wrong of [url, "ftp://host/i.img", "/etc/passwd", "not a url", ""]) {
    await assertRejects(() => get(lab, wrong), ProvisioningError);
  }
  await lab.config({ allow_file_urls: true });
  await get(lab, url);
  assertEquals(await lab.read("i.img"), "on this host");
});

Deno.test("a file that does not fit on the disk is not begun", async () => {
  await using lab = await Lab.open();
  await using server = rawHttpStub(() => ({
    head: ["HTTP/1.1 200 OK", `content-length: ${2 ** 50}`],
    body: new Uint8Array(10),
  }));
  await assertRejects(
    () => get(lab, `http://127.0.0.1:${server.port}/`),
    ProvisioningError,
    "it needs 1125899906842624 bytes, and only",
  );
  assertEquals(server.clients, 1);
});

Deno.test("a server that never answers is given up", async () => {
  await using lab = await Lab.open();
  await using server = tcpStub(() => {});
  lab.hang = () => server.clients > 0;
  await assertRejects(
    () => get(lab, `http://127.0.0.1:${server.port}/`),
    ProvisioningError,
    "no answer within 30 s",
  );
  assertEquals(lab.clock.elapsed, 3 * 30_000 + 2 * 2_000);
});

Deno.test("a server that stops in the middle is asked again", async () => {
  await using lab = await Lab.open();
  await using server = tcpStub(async (client) => {
    await client.write(
      new TextEncoder().encode("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n0123456789"),
    );
  });
  const part = join(lab.cwd, "i.img.part");
  // Only once all that will ever come has come.
  lab.hang = () => existsSync(part) && Deno.statSync(part).size === 10;
  await assertRejects(() => get(lab, `http://127.0.0.1:${server.port}/`), ProvisioningError);
  assertStringIncludes(lab.log.join("\n"), "broke off after 10 bytes: no data arrived for 60 s");
});

Deno.test("00-common 15, download: a transfer that takes hours is no failure, only one that stalls", async () => {
  await using lab = await Lab.open();
  const hour = 3_600_000;
  await using server = breakingServer(150_000, () => {
    lab.clock.elapsed += hour;
  });
  await get(lab, `http://127.0.0.1:${server.port}/`, SHA256);
  await assertWhole(lab);
  assert(lab.clock.elapsed > 2 * hour);
});

Deno.test("a download ends at once when the connector is stopped, and leaves nothing behind", async () => {
  await using lab = await Lab.open();
  const stop = new AbortController();
  const never = Promise.withResolvers<void>();
  await using server = httpStub(async () => {
    stop.abort(new Stopped("SIGTERM"));
    await never.promise;
    return new Response();
  });
  await assertRejects(
    () => inStage(lab, (ctx) => download(ctx, { url: server.url, to: "i.img" }), stop.signal),
    Stopped,
  );
  assert(!await lab.has("i.img.part"));
  never.resolve();
});

Deno.test("a password in a URL is not logged", async () => {
  await using lab = await Lab.open();
  await using server = httpStub(() => new Response(IMAGE));
  await get(lab, server.url.replace("http://", "http://me:s3cret@"));
  assert(!lab.log.join("\n").includes("s3cret"));
  assertStringIncludes(lab.log.join("\n"), "http://me:***@");
});

Deno.test("a server that is not there is named with what the system says of it, and without a password", async () => {
  await using lab = await Lab.open();
  const url = `http://me:secret@127.0.0.1:${freePort()}/i.img`;
  const error = await assertRejects(() => get(lab, url), ProvisioningError);
  assertStringIncludes(error.message, ": tcp connect error: Connection refused (os error 111)");
  assert(![error.message, ...lab.log].some((line) => line.includes("secret")));
});
