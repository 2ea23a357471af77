/**
 * Images over a link of 100 Mbit/s to a real ssh server, beside what anybody would do by hand; with a
 * block map, beside bmaptool on the far side; the second job with an image; ten jobs with one image.
 * Of the modules themselves, not of the packaged program.
 */
import { join } from "node:path";
import { flash } from "../connectors/support/image/flash.ts";
import { openImage } from "../connectors/support/image/source.ts";
import { incompressible, xz } from "../tests/support/disk_images.ts";
import { isInstalled, SSH_TOOLS, SshServer } from "../tests/support/sshd.ts";
import { contextFor, imageServer, limitedLink } from "./board.ts";
import { type BenchRun, type Figure, figure } from "./figures.ts";
import { milliseconds, output, ROOT } from "./program.ts";

const MIB = 1024 * 1024;

/** 100 Mbit/s. */
const LINK_BYTES_PER_SECOND = 12_500_000;

/** What ten jobs share with nobody else. */
const SERVER_BYTES_PER_SECOND = 50_000_000;

/** How often the medium is looked at. */
const LOOK_MS = 2;

/** Nothing where this host lacks a program. */
export async function bench({ quick }: BenchRun): Promise<Figure[]> {
  const missing = [...SSH_TOOLS, "xz", "zstd", "bmaptool"].filter((tool) => !isInstalled(tool));
  if (missing.length > 0) {
    console.error(`Images are not measured: there is no ${missing.join(", ")} on this host`);
    return [];
  }
  const size = (quick ? 64 : 4096) * MIB;
  const folder = await Deno.makeTempDir({ prefix: "image-bench-", dir: "/var/tmp" });
  await using ssh = await SshServer.open();
  await ssh.program("sudo", 'exec "$@"');
  // Of a medium that is a file.
  await ssh.program("hdparm", "");
  try {
    const image = join(folder, "i.img");
    await makeImage(image, size);
    await output("bmaptool", "create", image, "-o", `${image}.bmap`);
    await xz(image);
    const place = { ssh, folder, image };
    return [
      ...await overLimitedLink(place),
      await secondJob(place, 3),
      await tenJobs(place),
    ];
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

interface Place {
  readonly ssh: SshServer;
  readonly folder: string;
  /** Path of the raw image, beside which are a packed one and the block map. */
  readonly image: string;
}

/** An image with holes: a quarter of it is data, in sixteen pieces. */
async function makeImage(path: string, size: number): Promise<void> {
  using file = await Deno.open(path, { write: true, createNew: true });
  const pieces = 16;
  for (let piece = 0; piece < pieces; piece++) {
    await file.seek(piece * size / pieces, Deno.SeekMode.Start);
    for (let written = 0; written < size / pieces / 4; written += MIB) {
      const bytes = incompressible(MIB);
      for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
    }
  }
  await file.truncate(size);
}

/** Each once: what the link takes is known, and by hand it is six minutes for 4 GiB. */
async function overLimitedLink({ ssh, folder, image }: Place): Promise<Figure[]> {
  await using link = limitedLink(ssh.port, LINK_BYTES_PER_SECOND);
  await using slowLink = limitedLink(ssh.port, LINK_BYTES_PER_SECOND);
  await using server = imageServer(folder);
  await using toServer = limitedLink(server.port, LINK_BYTES_PER_SECOND);
  const bytes = (await Deno.stat(image)).size;
  const medium = join(folder, "medium");
  const emptied = async (size: number) => {
    await Deno.writeFile(medium, new Uint8Array());
    await Deno.truncate(medium, size);
  };
  const write = (bmap: "none" | "beside the image") =>
    seconds(async () => {
      const { ctx, putBack } = contextFor(folder, { ...loginOf(ssh), port: link.port });
      const source = { kind: "attachment", path: `${image}.xz`, bmap } as const;
      try {
        await using opened = await openImage(ctx, source);
        await flash(ctx, { image: opened, device: medium, wire: "auto", verify: true });
      } finally {
        await putBack.runAll();
      }
    });
  await emptied(0);
  const sentBefore = link.sent;
  const plain = await write("none");
  const onTheLink = (link.sent - sentBefore) / LINK_BYTES_PER_SECOND;
  await same(image, medium);
  await emptied(0);
  const onTheMedium = await seconds(() =>
    shellOn(ssh, `dd if=${image} of=${medium} bs=4M conv=fsync`)
  );
  const login = `${ssh.user}@127.0.0.1`;
  const host = "ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR";
  // It waits for its own link nearly all the time: the next two do not take it anything.
  const byHand = seconds(() =>
    shellOn(ssh, `xz -dc ${image}.xz | ${host} -p ${slowLink.port} ${login} 'cat > ${medium}-2'`)
  );
  byHand.catch(() => {}); // Waited for later.
  await emptied(bytes);
  const mapped = await write("beside the image");
  await same(image, medium);
  await emptied(bytes);
  const url = `http://127.0.0.1:${toServer.port}/i.img`;
  const bmaptool = await seconds(() =>
    shellOn(
      ssh,
      `${host} -p ${ssh.port} ${login} 'bmaptool -q copy --bmap ${url}.bmap ${url}.xz ${medium}'`,
    )
  );
  const what = `${Math.round(bytes / MIB)} MiB, a quarter data, xz, over 100 Mbit/s, verified`;
  const slower = onTheLink > onTheMedium ? "the link alone" : "the medium alone";
  return [
    figure({
      what,
      unit: "s",
      peer: { what: "xz -dc | ssh 'cat > file'", values: [await byHand] },
      target: "ratio 0.5",
    }, [plain]),
    figure({
      what: "  the same beside what limits it",
      unit: "s",
      peer: { what: slower, values: [Math.max(onTheLink, onTheMedium)] },
      target: "ratio 1.1",
    }, [plain]),
    figure({
      what: "  the same with a block map",
      unit: "s",
      peer: { what: "bmaptool copy on the far side", values: [bmaptool] },
      target: "ratio 1.1",
    }, [mapped]),
  ];
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  return await milliseconds(work) / 1000;
}

/** From the beginning of a job to the first byte on the medium, with an image that is kept. */
async function secondJob({ ssh, folder, image }: Place, times: number): Promise<Figure> {
  await using server = imageServer(folder);
  const url = `http://127.0.0.1:${server.port}/i.img.xz`;
  const env = {
    ...ssh.env,
    TESTFLINGER_IMAGE_CACHE: join(folder, "cache"),
    TESTFLINGER_IMAGE_CACHE_MAX: "1000000000000",
  };
  const medium = join(folder, "medium");
  const source = { kind: "url", url, sha256: undefined, bmap: "none" } as const;
  const firstBytes: number[] = [];
  for (let n = 0; n <= times; n++) {
    await Deno.writeFile(medium, new Uint8Array());
    const { ctx, putBack } = contextFor(folder, { ...loginOf(ssh), env, port: ssh.port });
    const downloads = server.downloads;
    const begun = performance.now();
    const job = (async () => {
      await using opened = await openImage(ctx, source);
      await flash(ctx, { image: opened, device: medium, wire: "auto", verify: false });
    })();
    let isOver = false;
    const ended = job.finally(() => isOver = true);
    while (!isOver && (await Deno.stat(medium)).size === 0) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
    // The first one fills the cache.
    if (n > 0) firstBytes.push(performance.now() - begun);
    await ended;
    await putBack.runAll();
    if (n > 0 && server.downloads !== downloads) throw new Error("The image was downloaded again");
  }
  await same(image, medium);
  return figure({
    what: "second job with an image, to the first byte written",
    unit: "ms",
    target: "1000 ms",
  }, firstBytes);
}

/** Ten jobs that want one image which nobody has yet, each of them beside one that is alone. */
async function tenJobs({ folder }: Place): Promise<Figure> {
  const alone: number[] = [];
  const together: number[] = [];
  for (const [jobs, taken] of [[1, alone], [10, together]] as const) {
    await using server = imageServer(folder);
    await using link = limitedLink(server.port, SERVER_BYTES_PER_SECOND);
    const url = `http://127.0.0.1:${link.port}/i.img.xz`;
    const cache = join(folder, `cache-${jobs}`);
    const args = ["run", "-A", "--quiet", join(ROOT, "bench/read_image.ts"), url, cache];
    const said = await Promise.all(
      Array.from({ length: jobs }, () => output(Deno.execPath(), ...args)),
    );
    if (server.downloads !== 1) throw new Error(`Downloaded ${server.downloads} times`);
    taken.push(...said.map(Number));
    if (!taken.every((ms) => ms > 0)) throw new Error(`A job failed: ${said.join(" ")}`);
    await Deno.remove(cache, { recursive: true });
  }
  return figure({
    what: "ten jobs, one image, cold cache: each",
    unit: "ms",
    peer: { what: "one job alone", values: alone },
    target: "ratio 1.3",
  }, together);
}

function loginOf(ssh: SshServer) {
  return { env: ssh.env, user: ssh.user };
}

/** Compares what was written with the image. */
async function same(image: string, medium: string): Promise<void> {
  const { success } = await new Deno.Command("cmp", { args: [image, medium] }).output();
  if (!success) throw new Error("Other bytes came out");
}

async function shellOn(ssh: SshServer, command: string): Promise<void> {
  const { success, stderr } = await new Deno.Command("sh", {
    args: ["-c", command],
    env: ssh.env,
    stdin: "null",
  }).output();
  if (!success) throw new Error(`${command}: ${new TextDecoder().decode(stderr)}`);
}
