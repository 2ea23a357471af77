/**
 * How fast artifacts are packed and how much memory that takes, against `tar cz` of the same
 * folder: one large file that cannot be compressed, a log, and many small files. Needs python3 for
 * the peak memory of a child. Run it with
 * `deno run --allow-env --allow-read --allow-run --allow-write bench/artifacts_bench.ts`;
 * ARTIFACTS_MB is the size of the large file, 1000 by default.
 */
const LARGE_MB = Number(Deno.env.get("ARTIFACTS_MB") ?? 1000);
const LOG_MB = 200;
const SMALL_FILES = 5000;
const SMALL_BYTES = 2000;

const MODULE = new URL("../lib/job/artifacts/pack.ts", import.meta.url).href;

/** Packs its first argument to standard output. */
const PACK_SCRIPT = `
  import { packArtifacts } from ${JSON.stringify(MODULE)};
  const onSkipped = (path, reason) => console.error(path, reason);
  await packArtifacts(Deno.args[0], { onSkipped }).pipeTo(Deno.stdout.writable);`;

/** Runs a command into `wc -c`; prints bytes, seconds and the command's own peak memory in KiB. */
const MEASURE = `
import os, resource, subprocess, sys, time
start = time.monotonic()
wc = subprocess.Popen(["wc", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child = subprocess.Popen(sys.argv[1:], stdout=wc.stdin)
wc.stdin.close()
_, status, usage = os.wait4(child.pid, 0)
size = int(wc.stdout.read())
assert status == 0
print(size, time.monotonic() - start, usage.ru_maxrss)
`;

interface Measured {
  bytes: number;
  seconds: number;
  peakMb: number;
}

async function measure(command: string[]): Promise<Measured> {
  const { success, stdout } = await new Deno.Command("python3", {
    args: ["-c", MEASURE, ...command],
    stderr: "inherit",
  }).output();
  if (!success) throw new Error(`${command.join(" ")} failed`);
  const [bytes = NaN, seconds = NaN, peakKb = NaN] = new TextDecoder().decode(stdout).split(" ")
    .map(Number);
  return { bytes, seconds, peakMb: peakKb / 1024 };
}

/** Writes `megabytes` of what `fill` puts into each megabyte. */
async function writeLarge(path: string, megabytes: number, fill: (into: Uint8Array) => void) {
  using file = await Deno.open(path, { write: true, createNew: true });
  const piece = new Uint8Array(1_000_000);
  for (let i = 0; i < megabytes; i++) {
    fill(piece);
    for (let written = 0; written < piece.length;) {
      written += await file.write(piece.subarray(written));
    }
  }
}

function fillWithNoise(piece: Uint8Array): void {
  for (let start = 0; start < piece.length; start += 65_536) {
    crypto.getRandomValues(piece.subarray(start, start + 65_536));
  }
}

function fillWithLog(piece: Uint8Array): void {
  const encoder = new TextEncoder();
  for (let filled = 0, n = 0; filled < piece.length; n++) {
    const number = Math.floor(Math.random() * 1e9).toString(36);
    const line = `[${n}.${n % 997}] usb ${n % 7}-1: new high-speed device ${number} found\n`;
    filled += encoder.encodeInto(line, piece.subarray(filled)).written || piece.length;
  }
}

async function compare(what: string, folder: string, megabytes: number): Promise<void> {
  const deno = [Deno.execPath(), "run", "--no-check", "--allow-read", `${folder}/pack.ts`];
  const ours = await measure([...deno, `${folder}/artifacts`]);
  const tar = await measure(["tar", "-C", folder, "-cz", "artifacts"]);
  const speed = (measured: Measured) => `${(megabytes / measured.seconds).toFixed(0)} MB/s`;
  console.log(
    `${what}: ${speed(ours)}, tar cz ${speed(tar)}, ratio ${
      (tar.seconds / ours.seconds).toFixed(2)
    }; archive ${(ours.bytes / tar.bytes).toFixed(3)} of tar's; ` +
      `peak memory ${ours.peakMb.toFixed(0)} MB`,
  );
}

const root = await Deno.makeTempDir({ prefix: "artifacts-bench-" });
try {
  for (const what of ["empty", "noise", "log", "small"]) {
    await Deno.mkdir(`${root}/${what}/artifacts`, { recursive: true });
    await Deno.writeTextFile(`${root}/${what}/pack.ts`, PACK_SCRIPT);
  }
  await writeLarge(`${root}/noise/artifacts/noise`, LARGE_MB, fillWithNoise);
  await writeLarge(`${root}/log/artifacts/log`, LOG_MB, fillWithLog);
  for (let i = 0; i < SMALL_FILES; i++) {
    const path = `${root}/small/artifacts/file-${i}`;
    await Deno.writeFile(path, crypto.getRandomValues(new Uint8Array(SMALL_BYTES)));
  }
  await compare("nothing at all", `${root}/empty`, 0);
  await compare(`${LARGE_MB} MB that cannot be compressed`, `${root}/noise`, LARGE_MB);
  await compare(`${LOG_MB} MB of log`, `${root}/log`, LOG_MB);
  await compare(`${SMALL_FILES} small files`, `${root}/small`, SMALL_FILES * SMALL_BYTES / 1e6);
} finally {
  await Deno.remove(root, { recursive: true });
}
