import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { closedPort, type HttpStub, httpStub, tcpStub } from "./support/stubs.ts";
import { Lab } from "./support/lab.ts";
import { slowImages } from "./support/slow_link.ts";

const IMAGE = Uint8Array.from({ length: 200_000 }, (_, i) => (i * 7919) % 251);

/** An imager on loopback, which really fetches what it is told to write. */
interface Imager {
  /** What it has written, as it came. */
  written: Uint8Array | undefined;
  /** Request lines, without the method. */
  asked: string[];
  stub: HttpStub;
}

interface ImagerOptions {
  /** False: it does not run; asked at each request. @default it runs */
  runs?: () => boolean;
  /** In place of fetching and writing. */
  write?: (url: URL) => Response | Promise<Response>;
}

function openImager({ runs = () => true, write }: ImagerOptions = {}): Imager {
  const imager: Imager = {
    written: undefined,
    asked: [],
    stub: httpStub(async ({ path }, raw) => {
      const url = new URL(raw.url);
      imager.asked.push(`${path}${url.search}`);
      if (!runs()) return new Response("nothing here", { status: 404 });
      if (path === "/check") return new Response("Snappy Test Device Imager v1");
      if (path !== "/writeimage") return new Response("rebooting");
      if (write !== undefined) return await write(url);
      imager.written = await fetchFrom(url);
      return new Response(`wrote ${imager.written.length} bytes`);
    }),
  };
  return imager;
}

/** Fetches what a `/writeimage` names, from 127.0.0.1. */
async function fetchFrom({ searchParams }: URL): Promise<Uint8Array> {
  const [hostname = "", port = ""] = (searchParams.get("server") ?? "").split(":");
  using client = await Deno.connect({ hostname, port: Number(port) });
  const parts: Uint8Array<ArrayBuffer>[] = [];
  for await (const part of client.readable) parts.push(part);
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** A lab with an imager and an image server. */
async function openLab(options: ImagerOptions & { image?: Uint8Array<ArrayBuffer> } = {}) {
  const lab = await Lab.open();
  for (const program of ["zcat", "zstdcat"]) {
    await Deno.symlink(`/usr/bin/${program}`, join(lab.root, "bin", program));
  }
  const imager = openImager(options);
  const images = httpStub(() => new Response(options.image ?? IMAGE));
  const config = {
    agent_name: "a1",
    device_ip: "127.0.0.1",
    test_device: "/dev/sda",
    imager_port: imager.stub.port,
    reboot_script: ["touch reset"],
    select_master_script: ["echo master >> selected"],
    select_test_script: ["echo test >> selected"],
  };
  await lab.config(config);
  await lab.job({ provision_data: { url: `${images.url}/i.img` } });
  return {
    lab,
    imager,
    config,
    async [Symbol.asyncDispose]() {
      await imager.stub[Symbol.asyncDispose]();
      await images[Symbol.asyncDispose]();
      await lab[Symbol.asyncDispose]();
    },
  };
}

async function gzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const packed = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(packed).arrayBuffer());
}

/** What `unxz` makes of bytes. */
async function unxz(lab: Lab, bytes: Uint8Array): Promise<Uint8Array> {
  const file = join(lab.root, "received.xz");
  await Deno.writeFile(file, bytes);
  const { stdout, success } = await new Deno.Command("xz", { args: ["-dc", file] }).output();
  assert(success);
  return stdout;
}

Deno.test("15-netboot 1: the imager gets the image as xz, and the device is waited for", async () => {
  await using scene = await openLab({ image: await gzip(IMAGE) });
  const { lab, imager } = scene;
  await lab.fake("ssh-copy-id", '[ "$n" -ge 3 ]');
  const run = await lab.stage("netboot", "provision");
  assertEquals(run.code, 0, run.stderr);
  assertEquals(imager.asked.map((line) => line.split("?")[0]), [
    "/check",
    "/writeimage",
    "/reboot",
  ]);
  assertEquals(await unxz(lab, imager.written ?? new Uint8Array()), IMAGE);
  assertStringIncludes(run.stdout, `wrote ${imager.written?.length} bytes`);
  assertStringIncludes(
    run.stderr,
    `The imager has the whole image: ${imager.written?.length} bytes`,
  );
  // Nothing of it is left.
  assertEquals([...Deno.readDirSync(lab.cwd)].filter(({ name }) => /image|install/.test(name)), []);
  assertEquals((await lab.read("selected")).trim(), "test");
  assert(!await lab.has("reset"), "a device that boots was reset");
  assertEquals(lab.clock.paused, [60_000, 10_000, 10_000, 10_000]);
});

Deno.test("the boot is selected before the imager is told to reboot", async () => {
  let selectedAtReboot = "";
  await using scene = await openLab();
  const { lab } = scene;
  const { stub } = scene.imager;
  await lab.config({
    ...scene.config,
    select_test_script: [`echo test >> selected; echo ${stub.requests.length}`],
  });
  const watching = stub.requests.push.bind(stub.requests);
  stub.requests.push = (...requests) => {
    if (requests[0]?.path === "/reboot") {
      selectedAtReboot = Deno.readTextFileSync(join(lab.cwd, "selected"));
    }
    return watching(...requests);
  };
  assertEquals((await lab.stage("netboot", "provision")).code, 0);
  assertEquals(selectedAtReboot, "test\n");
});

Deno.test("an image that is xz already is served as it is", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.writeFile(`${folder}/i`, IMAGE);
  await new Deno.Command("xz", { args: ["-9", `${folder}/i`] }).output();
  const packed = await Deno.readFile(`${folder}/i.xz`);
  await Deno.remove(folder, { recursive: true });
  await using scene = await openLab({ image: packed });
  assertEquals((await scene.lab.stage("netboot", "provision")).code, 0);
  assertEquals(scene.imager.written, packed);
});

Deno.test("a zstd image, which established recompression flashed as rubbish, arrives as an image", async () => {
  const folder = await Deno.makeTempDir();
  await Deno.writeFile(`${folder}/i`, IMAGE);
  await new Deno.Command("zstd", { args: ["-q", `${folder}/i`] }).output();
  const packed = await Deno.readFile(`${folder}/i.zst`);
  await Deno.remove(folder, { recursive: true });
  await using scene = await openLab({ image: packed });
  const run = await scene.lab.stage("netboot", "provision");
  assertEquals(run.code, 0, run.stderr);
  assertEquals(await unxz(scene.lab, scene.imager.written ?? new Uint8Array()), IMAGE);
});

Deno.test("15-netboot 2: a job without an image is refused before the imager is asked for anything", async () => {
  await using scene = await openLab();
  await scene.lab.job({ provision_data: { skip: false } });
  assertEquals((await scene.lab.stage("netboot", "provision")).code, 1);
  const failure = await scene.lab.failure("provision");
  assertEquals(failure.exception_name, "ProvisioningError");
  assertStringIncludes(failure.exception_message ?? "", "'url'");
  assertEquals(scene.imager.asked, []);
});

Deno.test("15-netboot 3: a device with its test image up is reset into the imager", async () => {
  await using scene = await openLab({ runs: () => existsSync(join(scene.lab.cwd, "reset")) });
  const { lab } = scene;
  const run = await lab.stage("netboot", "provision");
  assertEquals(run.code, 0, run.stderr);
  assertEquals(await lab.read("selected"), "master\ntest\n");
  assert(await lab.has("reset"));
  assert(scene.imager.written !== undefined);
});

Deno.test("15-netboot 4: a device that shows neither imager nor test image is a matter for a person", async () => {
  await using scene = await openLab({ runs: () => false });
  await scene.lab.fake("ssh-copy-id", "echo 'No route to host' >&2; exit 1");
  await scene.lab.fake("ssh", "exit 255");
  assertEquals((await scene.lab.stage("netboot", "provision")).code, 46);
  const failure = await scene.lab.failure("provision");
  assertEquals(failure.exception_name, "RecoveryError");
  assertStringIncludes(failure.exception_message ?? "", "No route to host");
});

Deno.test("an imager that does not come up after the reset is a matter for a person", async () => {
  await using scene = await openLab({ runs: () => false });
  assertEquals((await scene.lab.stage("netboot", "provision")).code, 46);
  assertStringIncludes(
    (await scene.lab.failure("provision")).exception_message ?? "",
    "The imager cannot be booted: it did not come up within 600 s",
  );
  assertEquals(scene.lab.clock.elapsed, 600_000);
});

Deno.test("a device that cannot be told to boot the imager is a matter for a person", async () => {
  await using scene = await openLab({ runs: () => false });
  await scene.lab.config({ ...scene.config, select_master_script: ["echo no relay >&2; false"] });
  assertEquals((await scene.lab.stage("netboot", "provision")).code, 46);
  const failure = await scene.lab.failure("provision");
  assertEquals(failure.exception_name, "RecoveryError");
  assertStringIncludes(failure.exception_message ?? "", "'select_master_script");
  assertStringIncludes(failure.exception_message ?? "", "no relay");
});

Deno.test("15-netboot 5: an imager that refuses ends the stage at once", async () => {
  await using scene = await openLab({
    write: () => new Response("no such disk", { status: 500 }),
  });
  assertEquals((await scene.lab.stage("netboot", "provision")).code, 1);
  const failure = await scene.lab.failure("provision");
  assertEquals(failure.exception_name, "ProvisioningError");
  assertStringIncludes(failure.exception_message ?? "", "status 500: no such disk");
  assertEquals(scene.lab.clock.elapsed, 0);
});

Deno.test("an imager that answers 200 and speaks of an error, or did not fetch all, has failed", async () => {
  await using failing = await openLab({ write: () => new Response("ERROR: disk is full") });
  assertEquals((await failing.lab.stage("netboot", "provision")).code, 1);
  let answered = false;
  await using lazy = await openLab({
    write() {
      answered = true;
      return new Response("done");
    },
  });
  lazy.lab.hang = () => answered;
  assertEquals((await lazy.lab.stage("netboot", "provision")).code, 1);
  assertStringIncludes(
    (await lazy.lab.failure("provision")).exception_message ?? "",
    "The file was not requested within 120 s",
  );
});

Deno.test("an image that takes more than 1800 s to arrive is written for all that", async () => {
  await using scene = await openLab();
  const { lab, imager } = scene;
  await using images = slowImages(lab, {
    image: IMAGE,
    ms: 2_000_000,
    isWriting: () => imager.asked.some((line) => line.startsWith("/writeimage")),
  });
  await lab.job({ provision_data: { url: `${images.url}/i.img` } });
  const run = await lab.stage("netboot", "provision");
  assertEquals(run.code, 0, run.stderr);
  assert(lab.clock.elapsed > 2_000_000);
  assertEquals(await unxz(lab, imager.written ?? new Uint8Array()), IMAGE);
});

Deno.test("an imager that has the image and does not say within 1800 s that it is written has failed", async () => {
  const { promise: isOver, resolve: end } = Promise.withResolvers<void>();
  let isFetched = false;
  await using scene = await openLab({
    async write(url) {
      await fetchFrom(url);
      isFetched = true;
      await isOver;
      return new Response();
    },
  });
  scene.lab.hang = () => isFetched;
  assertEquals((await scene.lab.stage("netboot", "provision")).code, 1);
  end();
  assertStringIncludes(
    (await scene.lab.failure("provision")).exception_message ?? "",
    "The imager did not write the image: no answer within 1800 s",
  );
});

Deno.test("15-netboot 6: a command after the flash that fails is named", async () => {
  await using scene = await openLab();
  await scene.lab.config({ ...scene.config, post_flash_cmds: ["true", "false"] });
  assertEquals((await scene.lab.stage("netboot", "provision")).code, 1);
  assertStringIncludes(
    (await scene.lab.failure("provision")).exception_message ?? "",
    "'post_flash_cmds[1]: false' ended with exit status 1",
  );
});

Deno.test("15-netboot 7: a command after the flash that says nothing is ended after 60 s", async () => {
  await using scene = await openLab();
  await scene.lab.fake("quiet", "hang");
  await scene.lab.config({ ...scene.config, post_flash_cmds: ["quiet"] });
  assertEquals((await scene.lab.stage("netboot", "provision")).code, 1);
  assertStringIncludes(
    (await scene.lab.failure("provision")).exception_message ?? "",
    "was ended after 60 s",
  );
});

Deno.test("15-netboot 8: commands after the flash have the agent's environment, and print to the log", async () => {
  await using scene = await openLab();
  await scene.lab.config({ ...scene.config, post_flash_cmds: ["echo home is $HOME"] });
  const run = await scene.lab.stage("netboot", "provision");
  assertEquals(run.code, 0, run.stderr);
  assertStringIncludes(run.stdout, `home is ${scene.lab.root}/home\n`);
});

Deno.test("15-netboot 9: an imager that takes the connection and says nothing does not run", async () => {
  await using scene = await openLab();
  await using silent = tcpStub(() => {});
  await scene.lab.config({ ...scene.config, imager_port: silent.port });
  let seen = 0;
  scene.lab.hang = () => {
    const isNew = silent.clients > seen;
    seen = silent.clients;
    return isNew;
  };
  assertEquals((await scene.lab.stage("netboot", "provision")).code, 46);
  assertStringIncludes(
    (await scene.lab.failure("provision")).exception_message ?? "",
    "no answer within 5 s",
  );
});

Deno.test("15-netboot 10: the job's user and password take the place of admin", async () => {
  await using scene = await openLab();
  assertEquals((await scene.lab.stage("netboot", "provision")).code, 0);
  const [own] = await scene.lab.calls("ssh-copy-id");
  assertEquals([own?.args.at(-1), own?.password], ["admin@127.0.0.1", "admin"]);

  await using other = await openLab();
  const job = await other.lab.json("testflinger.json") as Record<string, unknown>;
  await other.lab.job({ ...job, test_data: { test_username: "ubuntu", test_password: "x" } });
  assertEquals((await other.lab.stage("netboot", "provision")).code, 0);
  const [call] = await other.lab.calls("ssh-copy-id");
  assertEquals([call?.args.at(-1), call?.password], ["ubuntu@127.0.0.1", "x"]);
});

Deno.test("15-netboot 11: imagers of old are sent their backslash, others a plain address", async () => {
  for (const [legacy, wanted] of [[true, "\\&dev=/dev/sda"], [false, "&dev=/dev/sda"]] as const) {
    let line = "";
    await using imager = tcpStub(async (client) => {
      const buffer = new Uint8Array(4096);
      const request = new TextDecoder().decode(buffer.subarray(0, await client.read(buffer) ?? 0));
      if (request.includes("/writeimage")) line = request.split("\r\n")[0] ?? "";
      const body = request.includes("/check") ? "Snappy Test Device Imager" : "ERROR: enough";
      const answer =
        `HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: ${body.length}\r\n\r\n`;
      await client.write(new TextEncoder().encode(answer + body));
      client.close();
    });
    await using scene = await openLab();
    await scene.lab.config({
      ...scene.config,
      imager_port: imager.port,
      netboot_legacy_escape: legacy,
    });
    assertEquals((await scene.lab.stage("netboot", "provision")).code, 1);
    assertStringIncludes(line, wanted);
    assertEquals(line.includes("\\"), legacy);
  }
});

Deno.test("an imager with an IPv6 address is told to fetch from one", async () => {
  let asked: URLSearchParams | undefined;
  await using imager = Deno.serve({ hostname: "::1", port: 0, onListen() {} }, (raw) => {
    const { pathname, searchParams } = new URL(raw.url);
    if (pathname === "/check") return new Response("Snappy Test Device Imager");
    asked = searchParams;
    return new Response("ERROR: enough");
  });
  await using scene = await openLab();
  await scene.lab.config({ ...scene.config, device_ip: "::1", imager_port: imager.addr.port });
  assertEquals((await scene.lab.stage("netboot", "provision")).code, 1);
  assertMatch(asked?.get("server") ?? "", /^\[::1\]:\d+$/);
});

Deno.test("a device may fetch the image by way of its control host", async () => {
  let bytes = 0;
  await using imager = Deno.serve(
    { hostname: "127.0.0.2", port: 0, onListen() {} },
    async (raw) => {
      const url = new URL(raw.url);
      if (url.pathname === "/check") return new Response("Snappy Test Device Imager");
      if (url.pathname === "/writeimage") bytes = (await fetchFrom(url)).length;
      return new Response();
    },
  );
  await using scene = await openLab();
  await scene.lab.config({
    ...scene.config,
    device_ip: "127.0.0.2",
    imager_port: imager.addr.port,
    control_host: "127.0.0.1",
    control_host_port: closedPort(),
  });
  const run = await scene.lab.stage("netboot", "provision");
  assertEquals(run.code, 0, run.stderr);
  assertStringIncludes(run.stderr, `The imager has the whole image: ${bytes} bytes`);
});

Deno.test("a device that does not come up after the flash is reset, and given up in the end", async () => {
  await using scene = await openLab();
  await scene.lab.fake("ssh-copy-id", "exit 1");
  await scene.lab.fake("ssh", "exit 255");
  assertEquals((await scene.lab.stage("netboot", "provision")).code, 1);
  assert(await scene.lab.has("reset"));
  assertStringIncludes(
    (await scene.lab.failure("provision")).exception_message ?? "",
    "The test image did not come up within 900 s",
  );
});

Deno.test("an image that cannot be had fails before the device is touched", async () => {
  await using missing = await openLab();
  await missing.lab.job({ provision_data: { url: `http://127.0.0.1:${closedPort()}/i.img` } });
  assertEquals((await missing.lab.stage("netboot", "provision")).code, 1);
  assertEquals(missing.imager.asked, []);
});

Deno.test("an image that breaks off, or has the wrong checksum, never comes to its end, and is not booted", async () => {
  const whole = await gzip(IMAGE);
  for (
    const [image, sha256, why] of [
      [whole.slice(0, whole.length - 100), undefined, "Cannot unpack the image"],
      [whole, "0".repeat(64), "it is not the right file"],
    ] as const
  ) {
    await using scene = await openLab({ image });
    const { lab, imager } = scene;
    const job = await lab.json("testflinger.json") as { provision_data: Record<string, unknown> };
    await lab.job({ provision_data: { ...job.provision_data, sha256 } });
    assertEquals((await lab.stage("netboot", "provision")).code, 1);
    assertStringIncludes((await lab.failure("provision")).exception_message ?? "", why);
    assert(!imager.asked.includes("/reboot"));
    // What the imager got, if anything, is no whole xz file.
    await Deno.writeFile(join(lab.root, "got.xz"), imager.written ?? new Uint8Array());
    const { success } = await new Deno.Command("xz", { args: ["-t", join(lab.root, "got.xz")] })
      .output();
    assert(!success);
  }
});

Deno.test("the second job with an image has it from the host's cache, byte for byte", async () => {
  const image = await gzip(IMAGE);
  let whole = 0;
  await using images = httpStub((_, raw) => {
    if (raw.headers.get("if-none-match") === '"1"') return new Response(null, { status: 304 });
    whole++;
    return new Response(image, { headers: { etag: '"1"' } });
  });
  await using scene = await openLab();
  const { lab, imager } = scene;
  await lab.job({ provision_data: { url: `${images.url}/i.img.gz` } });
  const cache = {
    TESTFLINGER_IMAGE_CACHE: join(lab.root, "cache"),
    TESTFLINGER_IMAGE_CACHE_MAX: "1000000000",
  };
  for (let n = 0; n < 2; n++) {
    imager.written = undefined;
    const run = await lab.stage("netboot", "provision", { env: cache });
    assertEquals(run.code, 0, run.stderr);
    assertEquals(await unxz(lab, imager.written ?? new Uint8Array()), IMAGE);
  }
  assertEquals(whole, 1);
});
