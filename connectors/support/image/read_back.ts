/**
 * Reading back what was written to a medium: while later parts of the image still arrive, where the
 * far side's dd can bypass what its host has in memory, else when all is written.
 */
import type { Progress } from "../../../lib/progress.ts";
import type { ConnectorContext } from "../../context.ts";
import { ProvisioningError } from "../errors.ts";
import { progressOf } from "../log.ts";
import { type CommandResult, expectSuccess } from "../process/runner.ts";
import type { Remote } from "../ssh/remote.ts";
import { quote } from "../ssh/ssh.ts";

/** What reading back may take. */
export const VERIFY_TIMEOUT_MS = 1_800_000;

/** How much is written before it is read back: little is left for the end, and a card can erase whole blocks. */
export const READ_BACK_BYTES = 32 * 1024 * 1024;

/** Direct reads begin and end at multiples of this. */
export const ALIGNMENT = 4096;

/** How much of a piece is read once more in the end. */
const SPOT_BYTES = 256 * 1024;

/** What a writer prints behind its last piece, once all is on the medium. */
export const END = "end";

const READING_FAILED = "testflinger: the medium could not be read";
const FORGOTTEN = "testflinger: the medium has forgotten what it had";
const WRITTEN = "testflinger: written bytes:";
const READ = "testflinger: read back bytes:";
const SUM = "testflinger: read back:";

/** Where the medium is. */
export interface Medium {
  readonly to: Remote;
  /** Block device of that host. */
  readonly device: string;
}

/** Shell command by which a writer says that `$sum` bytes are written. */
export const SAY_WRITTEN = `echo "${WRITTEN} $sum" >&2`;

/**
 * A shell program for root that writes, and reads back meanwhile.
 *
 * @param writer shell program that writes what comes in by standard input. It prints a line with
 *   place and length of each piece that it has written, and `END` behind the last one.
 * @param otherwise what writes where dd cannot read directly from the medium.
 */
export function writingAndReadingBack(
  { device, writer, otherwise }: {
    readonly device: string;
    readonly writer: string;
    readonly otherwise: string;
  },
): string {
  const read = `dd if=${quote(device)} iflag=direct,fullblock,skip_bytes,count_bytes status=none`;
  return `LC_ALL=C; export LC_ALL; ` +
    `if ${read} bs=${ALIGNMENT} skip=0 count=${ALIGNMENT} </dev/null >/dev/null 2>&1; then ` +
    // The status of the one in the middle of a pipe.
    `exec 4>&1; s=$({ { { ${writer}; } | { ${follower(device, read)}; }; echo "$?" >&5; } | ` +
    `echo "${SUM} $(sha256sum)" >&4; } 5>&1); exit "$s"; fi; ${otherwise}`;
}

/**
 * Reads the pieces whose places come in, while nothing is written to the medium: where the medium is
 * what limits the writing, reading would only make it slower. The beginning of each piece is read
 * once more in the end, as some media lose what they had when more is written to them than they hold.
 */
function follower(device: string, read: string): string {
  // Where SIGPIPE ended it, it is not the medium that could not be read.
  return `x() { [ "$1" = 141 ] || echo "${READING_FAILED}" >&2; exit 1; }; ` +
    `b() { ${read} bs=4M skip="$1" count="$2" || x "$?"; }; ` +
    `d=$(readlink -f ${quote(device)}); q=/sys/class/block/\${d##*/}/inflight; ` +
    `sum=0; next=0; spots=; first=; while read -r at n; do ` +
    `if [ "$at" = ${END} ]; then again=; ` +
    `for s in $spots; do again="$again$(b "\${s%:*}" "\${s#*:}" | sha256sum)"; done; ` +
    `[ "$again" = "$first" ] || { echo "${FORGOTTEN}" >&2; exit 1; }; exit 0; fi; ` +
    // Two numbers, as the kernel has them: reads and writes under way.
    `while w=$(cat "$q" 2>/dev/null) && [ "\${w##* }" -gt 0 ] 2>/dev/null; do ` +
    `sleep 0.1 2>/dev/null || sleep 1; done; ` +
    `r=$((n % ${ALIGNMENT})); w=$((n - r)); [ "$w" = 0 ] || b "$at" "$w"; ` +
    `[ "$r" = 0 ] || b "$((at + w))" ${ALIGNMENT} | head -c "$r" || x "$?"; sum=$((sum + n)); ` +
    `[ "$sum" -ge "$next" ] || continue; next=$((sum + ${READ_BACK_BYTES})); ` +
    // Where nobody listens any more there is no point in going on.
    `echo "${READ} $sum" >&2 || exit 1; ` +
    `[ "$w" -le ${SPOT_BYTES} ] || w=${SPOT_BYTES}; [ "$w" = 0 ] || { spots="$spots $at:$w"; ` +
    `first="$first$(b "$at" "$w" | sha256sum)"; }; done; exit 1`;
}

/** What came of writing, without what was only for this program. */
export interface SaidOfCopy {
  readonly result: CommandResult;
  /** Bytes that the writer has written, where it says so. */
  readonly written: number | undefined;
  /** The checksum that sha256sum has printed of what was to be written. */
  readonly sha256: string | undefined;
  /** SHA-256 of what was read back meanwhile. */
  readonly readBack: string | undefined;
}

/**
 * Takes apart what a program of `writingAndReadingBack` printed.
 *
 * @throws ProvisioningError when the medium could not be read, or has forgotten something.
 */
export function takeApart(result: CommandResult, device: string): SaidOfCopy {
  if (!("stdout" in result)) {
    return { result, written: undefined, sha256: undefined, readBack: undefined };
  }
  const { stdout, stderr } = result;
  failWhereReadingFailed(stderr, { device, program: "dd" });
  if (stderr.includes(FORGOTTEN)) {
    throw new ProvisioningError(
      `The medium does not keep what is written to it: ${device} gave back what had just been ` +
        `written, and after more had been written no longer`,
    );
  }
  const written = new RegExp(`${WRITTEN} (\\d+)`).exec(stderr)?.[1];
  return {
    result: { ...result, stdout: plain(stdout), stderr: plain(stderr) },
    written: written === undefined ? undefined : Number(written),
    sha256: checksumIn(stdout),
    readBack: new RegExp(`^${SUM} ([0-9a-f]{64})\\b`, "m").exec(stdout)?.[1],
  };
}

/** Several programs write there at once: what ours say may be in the middle of another one's line. */
const OUR_LINES = new RegExp(
  `(?:${WRITTEN}|${READ}) ?\\d*\\r?\\n?|^(?:${SUM}.*|[0-9a-f]{64}  -\\r?)\\n?`,
  "gm",
);

function plain(output: string): string {
  return output.replaceAll(OUR_LINES, "");
}

function failWhereReadingFailed(
  stderr: string,
  { device, program }: { readonly device: string; readonly program: string },
): void {
  if (!stderr.includes(READING_FAILED)) return;
  const why = plain(stderr.split(READING_FAILED)[0] ?? "").trim();
  throw new ProvisioningError(
    `Cannot verify what was written to ${device}: '${program}' cannot read it: ${why}`,
  );
}

/** Shows how far reading back has come from the moment on when all is written. */
export class ReadBackProgress implements Disposable {
  readonly #decoder = new TextDecoder();
  #line = "";
  #read = 0;
  #rest: { readonly progress: Progress; readonly from: number } | undefined;

  constructor(
    readonly ctx: Pick<ConnectorContext, "limits" | "log" | "progress">,
    readonly device: string,
  ) {}

  /** Takes what the program prints. */
  readonly onOutput = (bytes: Uint8Array): void => {
    const lines = (this.#line + this.#decoder.decode(bytes, { stream: true })).split("\n");
    this.#line = lines.pop() ?? "";
    for (const line of lines) {
      if (line.startsWith(READ)) {
        this.#read = Number(line.slice(READ.length));
        this.#rest?.progress.at(this.#read - this.#rest.from);
      } else if (line.startsWith(WRITTEN)) {
        const progress = progressOf(this.ctx, {
          what: `Reading back the rest of what was written to ${this.device}`,
          total: Number(line.slice(WRITTEN.length)) - this.#read,
        });
        this.#rest = { progress, from: this.#read };
      }
    }
  };

  [Symbol.dispose](): void {
    this.#rest?.progress.end();
  }
}

/**
 * Reads back what was written when all is written, from the medium itself.
 *
 * @param reading shell command that prints it, with its last program's name, and what it reads.
 * @returns its SHA-256.
 * @throws ProvisioningError when it cannot be read.
 */
export async function readBackInTheEnd(
  { to, device }: Medium,
  { command, program, input }: {
    readonly command: string;
    readonly program: string;
    readonly input?: string;
  },
): Promise<string | undefined> {
  const read = await to.run(
    // What the host still has in memory proves nothing.
    `sudo hdparm -f ${quote(device)} >/dev/null && ` +
      `{ ${command} || echo ${quote(READING_FAILED)} >&2; } | sha256sum`,
    { timeoutMs: VERIFY_TIMEOUT_MS, ...(input === undefined ? {} : { input }) },
  );
  expectSuccess(read, {
    step: `verify what was written to ${device}`,
    program: `hdparm -f && ${program} | sha256sum`,
  });
  failWhereReadingFailed(read.stderr, { device, program });
  return checksumIn(read.stdout);
}

function checksumIn(output: string): string | undefined {
  return /^([0-9a-f]{64})\b/m.exec(output)?.[1];
}

/** @throws ProvisioningError when what was read back is not what was written. */
export function compare(
  ctx: Pick<ConnectorContext, "log">,
  { device, size, wanted, found }: {
    readonly device: string;
    /** In bytes. */
    readonly size: number;
    readonly wanted: string;
    readonly found: string | undefined;
  },
): void {
  if (found === wanted) {
    ctx.log.info(`Read back ${size} bytes from ${device}: they are what was written`);
    return;
  }
  throw new ProvisioningError(
    `The medium does not keep what is written to it: of ${size} bytes, ${device} gives back ` +
      `others (SHA-256 ${found ?? "unknown"}, expected ${wanted})`,
  );
}
