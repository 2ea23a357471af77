import { assertEquals, assertGreater } from "@std/assert";
import { join } from "node:path";
import { ImageCache } from "../../connectors/support/image/cache.ts";
import {
  chooseWire,
  UNPACKING_FAILED,
  unpackingThere,
  wireOf,
} from "../../connectors/support/image/wire.ts";
import { controlHost } from "../../connectors/support/ssh/remote.ts";
import { SSH_TOOLS, testWithTools } from "../support/sshd.ts";
import { FlashBoard } from "./support/flash_board.ts";

const IMAGE = Uint8Array.from({ length: 1_000_000 }, (_, i) => (i >> 8) % 251);

/** What arrives when an image that was packed by `packer` crosses the connection. */
async function across(packer: string, unpacker: string, name: "raw" | "zstd" | "original") {
  const wire = wireOf(name, { unpacker });
  const file = await Deno.makeTempFile();
  await Deno.writeFile(file, IMAGE);
  const { stdout, success } = await new Deno.Command("/bin/sh", {
    args: ["-c", `${packer} < ${file} | { ${wire.filter ?? "cat"}; } | ${wire.unpacker}`],
  }).output();
  await Deno.remove(file);
  return { success, stdout };
}

for (
  const [packer, unpacker] of [["xz -1", "unxz"], ["gzip", "zcat"], ["zstd -q", "zstdcat"], [
    "cat",
    "cat",
  ]] as const
) {
  for (const name of ["raw", "zstd", "original"] as const) {
    Deno.test(`an image packed by ${packer} arrives whole as ${name}`, async () => {
      const { success, stdout } = await across(packer, unpacker, name);
      assertEquals([success, stdout.length], [true, IMAGE.length]);
      assertEquals(stdout, IMAGE);
    });
  }
}

/** Unpacks what `xz -1` made of some noise, with programs of the far side's own. */
async function unpackedThere(
  shell: readonly [string, ...string[]],
  programs: Readonly<Record<string, string>>,
  meanwhile: (bin: string, sent: Promise<void>) => Promise<void> = () => Promise.resolve(),
) {
  const bin = await Deno.makeTempDir({ prefix: "far-side-" });
  try {
    for (const [name, script] of Object.entries(programs)) {
      await Deno.writeTextFile(join(bin, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    }
    const noise = crypto.getRandomValues(new Uint8Array(65_536));
    const image = Uint8Array.from({ length: 1_500_000 }, (_, i) => noise[i % 65_521]! ^ i >> 12);
    await Deno.writeFile(join(bin, "image"), image);
    const { stdout: packed } = await new Deno.Command("xz", {
      args: ["-0", "-c", join(bin, "image")],
    }).output();
    // More than pipes hold.
    assertGreater(packed.length, 1_000_000);
    const [program, ...args] = shell;
    const child = new Deno.Command(program, {
      args: [...args, "-c", unpackingThere("unxz")],
      env: { PATH: `${bin}:/usr/bin:/bin` },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const sent = new Blob([packed]).stream().pipeTo(child.stdin).catch(() => {});
    await meanwhile(bin, sent);
    const { stdout, stderr } = await child.output();
    await sent;
    return {
      isWhole: stdout.length === image.length && stdout.every((byte, at) => byte === image[at]),
      hasFailed: new TextDecoder().decode(stderr).includes(UNPACKING_FAILED),
    };
  } finally {
    await Deno.remove(bin, { recursive: true });
  }
}

for (const shell of [["dash"], ["bash"], ["busybox", "sh"]] as const) {
  const unpacked = unpackedThere.bind(undefined, shell);
  const onIt = `where the far side's shell is ${shell[0]}`;

  Deno.test(`what has arrived waits there while the last of it is written, ${onIt}`, async () => {
    const unxz = "until [ -e ${0%/*}/go ]; do sleep 0.01; done; exec /usr/bin/unxz";
    const came = await unpacked({ unxz }, async (bin, sent) => {
      await sent;
      await Deno.writeTextFile(join(bin, "go"), "");
    });
    assertEquals(came, { isWhole: true, hasFailed: false });
  });

  Deno.test(`an image arrives whole without a dd that can wait, ${onIt}`, async () => {
    assertEquals(await unpacked({ dd: "exit 1" }), { isWhole: true, hasFailed: false });
  });

  Deno.test(`an unpacker that has all before the end of what is sent is no error, ${onIt}`, async () => {
    const came = await unpacked({ unxz: "head -c 1000000 | /usr/bin/unxz 2>/dev/null; exit 0" });
    assertEquals(came, { isWhole: false, hasFailed: false });
  });

  Deno.test(`what waits and is lost is an error, ${onIt}`, async () => {
    const dd = 'case "$*" in *count=0*) exit 0 ;; esac; head -c 100000; exit 1';
    const { isWhole, hasFailed } = await unpacked({ dd });
    assertEquals([isWhole, hasFailed], [false, true]);
  });
}

const DAY_MS = 24 * 3_600_000;

/** A control host on which unpacking takes as long as a test says, and an image for it. */
class Trial {
  /** Milliseconds since 1970. */
  now = 0;

  private constructor(readonly board: FlashBoard, readonly cache: ImageCache) {}

  static async open(board: FlashBoard): Promise<Trial> {
    const limits = { maxBytes: 1e9, minFreeBytes: 0 };
    const opened = await ImageCache.open(join(board.lab.root, "cache"), limits);
    if (!opened.ok) throw new Error(opened.why);
    await Deno.writeTextFile(join(board.server.root, "took"), "");
    return new Trial(board, opened.cache);
  }

  /** Lets programs of the control host take so many milliseconds. */
  async takes(milliseconds: Readonly<Record<string, number>>): Promise<void> {
    for (const [program, ms] of Object.entries(milliseconds)) {
      await this.board.server.program(
        program,
        `echo ${program} ${ms} >> "${this.board.server.root}/took"; exec /usr/bin/cat >/dev/null`,
      );
    }
  }

  /** The programs that were tried. */
  tried(): string[] {
    return this.#took().map(([program]) => program);
  }

  #took(): (readonly [program: string, ms: number])[] {
    const lines = Deno.readTextFileSync(join(this.board.server.root, "took")).trim().split("\n");
    return lines.filter((line) => line !== "").map((line) => {
      const [program = "", ms] = line.split(" ");
      return [program, Number(ms)];
    });
  }

  /** The form that is chosen for an image packed with xz. */
  async chosen({ isMapped = false } = {}): Promise<string> {
    const { ctx, putBack } = this.board.context({
      clock: {
        now: () => this.now,
        monotonic: () => this.#took().reduce((sum, [, ms]) => sum + ms, 0),
        sleep: () => Promise.resolve(),
      },
    });
    try {
      const image = {
        head: (length: number) => Promise.resolve(IMAGE.slice(0, length)),
        size: 100_000_000,
        unpacker: "unxz",
        cache: this.cache,
      };
      const to = controlHost(ctx);
      return (await chooseWire(ctx, { image, to, wanted: "auto", isMapped })).name;
    } finally {
      await putBack.runAll();
    }
  }
}

const TOOLS = [...SSH_TOOLS, "xz", "zstd", "lz4"];

testWithTools(
  "the fastest form is found once a day, and again where it has gone",
  TOOLS,
  async () => {
    await using board = await FlashBoard.open();
    const trial = await Trial.open(board);
    await trial.takes({ unxz: 1000, zstdcat: 100, lz4cat: 300 });
    assertEquals(await trial.chosen(), "zstd");
    assertEquals(trial.tried(), ["unxz", "zstdcat", "lz4cat"]);

    trial.now += DAY_MS - 1;
    assertEquals(await trial.chosen(), "zstd");
    assertEquals(trial.tried().length, 3);
    // With a block map less is sent, except of the original: another matter.
    await trial.takes({ zstdcat: 1100 });
    assertEquals(await trial.chosen({ isMapped: true }), "lz4");

    const before = trial.tried().length;
    trial.now += 1;
    await trial.takes({ zstdcat: 2000 });
    assertEquals(await trial.chosen(), "lz4");
    assertEquals(trial.tried().length, before + 3);

    // Not installed on this host any more.
    Object.defineProperty(board.server, "env", {
      value: { ...board.server.env, PATH: board.server.env.PATH?.split(":")[0] },
    });
    assertEquals(await trial.chosen(), "original");
  },
);

testWithTools(
  "a form that is hardly faster than the image as it came is not chosen",
  TOOLS,
  async () => {
    await using board = await FlashBoard.open();
    const trial = await Trial.open(board);
    await trial.takes({ unxz: 100, zstdcat: 90, lz4cat: 85, cat: 1 });
    assertEquals(await trial.chosen(), "original");
    // With holes in it, which the first megabytes need not have: that is no choice where others are.
    assertEquals(trial.tried(), ["unxz", "zstdcat", "lz4cat"]);
  },
);
