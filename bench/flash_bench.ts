/**
 * How fast muxpi writes an image, beside `ssh host 'cat > file'` of the bytes that are written: a
 * real ssh server on loopback, and a medium in memory, so that no disk is measured. Both take turns.
 * Of the module itself, not of the packaged program.
 */
import { join } from "node:path";
import { writeImage } from "../connectors/support/image/flash.ts";
import { fileStream, headOf, sniffImage, unpacker } from "../connectors/support/image/image.ts";
import { incompressible, xz } from "../tests/support/disk_images.ts";
import { isInstalled, SSH_TOOLS, SshServer } from "../tests/support/sshd.ts";
import { contextFor, memory } from "./board.ts";
import { type BenchRun, type Figure, figure } from "./figures.ts";
import { milliseconds } from "./program.ts";

const MIB = 1024 * 1024;
const SIZE = 64 * MIB;
const LIMIT_MS = 600_000;

/** Nothing where this host lacks a program. */
export async function bench({ quick }: BenchRun): Promise<Figure[]> {
  const missing = [...SSH_TOOLS, "xz"].filter((tool) => !isInstalled(tool));
  if (missing.length > 0) {
    console.error(`Flashing is not measured: there is no ${missing.join(", ")} on this host`);
    return [];
  }
  await using server = await SshServer.open();
  await server.program("sudo", 'exec "$@"');
  const folder = await Deno.makeTempDir({ prefix: "flash-bench-", dir: await memory() });
  try {
    const medium = join(folder, "medium");
    await Deno.writeFile(medium, new Uint8Array());
    const { ctx, putBack } = contextFor(server.root, {
      env: server.env,
      user: server.user,
      port: server.port,
    });
    // The shared ssh connection ends with the stage.
    await using stack = new AsyncDisposableStack();
    stack.defer(() => putBack.runAll());
    // What cannot be packed makes up half of it, as in an image with packages in it.
    const bytes = new Uint8Array(SIZE);
    bytes.set(incompressible(SIZE / 2), SIZE / 4);
    const raw = join(folder, "image");
    await Deno.writeFile(raw, bytes);
    const figures: Figure[] = [];
    for (const [what, path] of [["raw", raw], ["xz", await xz(raw)]] as const) {
      const format = await sniffImage(path);
      if (format === "qcow2") throw new Error("That image was not meant to be qcow2");
      const image = {
        stream: () => fileStream(path),
        head: (length: number) => headOf(path, length),
        size: SIZE,
        unpacker: unpacker(format),
        timeoutMs: LIMIT_MS,
      };
      const plain: number[] = [];
      const flashed: number[] = [];
      for (let pair = 0; pair < (quick ? 2 : 9); pair++) {
        plain.push(await milliseconds(() => sendPlainly(server, raw, join(folder, "copy"))));
        flashed.push(
          await milliseconds(() => writeImage(ctx, { image, device: medium, verify: false })),
        );
      }
      const written = await Deno.readFile(medium);
      if (!written.every((byte, at) => byte === bytes[at])) throw new Error("Other bytes came out");
      figures.push(figure({
        what: `flash 64 MiB, ${what}`,
        unit: "ms",
        peer: { what: "ssh 'cat > file' of the raw bytes", values: plain },
        target: "ratio 1.25",
      }, flashed));
    }
    return figures;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** What anybody would do by hand. */
async function sendPlainly(server: SshServer, file: string, to: string): Promise<void> {
  const ssh = `ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR ` +
    `-p ${server.port} ${server.user}@127.0.0.1 'cat > ${to}' < ${file}`;
  const { success } = await new Deno.Command("sh", { args: ["-c", ssh], env: server.env }).output();
  if (!success) throw new Error(`Cannot send ${file}`);
}
