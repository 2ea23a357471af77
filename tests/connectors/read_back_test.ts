/** Reading back what is written while the rest of the image arrives, from a real ssh server. */
import { takeApart } from "../../connectors/support/image/read_back.ts";
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { join } from "node:path";
import { ProvisioningError } from "../../connectors/support/errors.ts";
import { xz } from "../support/disk_images.ts";
import { SSH_TOOLS, testWithTools } from "../support/sshd.ts";
import { assertSame, FlashBoard } from "./support/flash_board.ts";
import { LoopControlHost, testWithLoops } from "./support/loop_control_host.ts";
import { until } from "./support/stubs.ts";

const MIB = 1024 * 1024;
/** How much is written before it is read back. */
const PIECE = 32 * MIB;

/** Two pieces and a bit, with an end that is in no block of its own. */
function image(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(2 * PIECE + 5 * MIB + 1234);
  for (let at = 0; at < bytes.length; at += 1000) bytes[at] = 1 + at % 251;
  return bytes;
}

/** What `dd` was called with by then, of calls that read from the medium; then it does `script`. */
async function watchDd(board: FlashBoard, script: string): Promise<() => Promise<string[]>> {
  const log = join(board.server.root, "reads");
  await Deno.writeTextFile(log, "");
  await board.server.program(
    "dd",
    `case "$*" in *of=*|*if=/dev/null*) ;; *if=*) echo "$*" >> "${log}";; esac\n${script}\n` +
      `exec /usr/bin/dd "$@"`,
  );
  return async () =>
    (await Deno.readTextFile(log)).trim().split("\n").filter((line) => line !== "");
}

const ofPiece = (n: number) => (line: string) => line.includes(`skip=${n * PIECE} count=${PIECE}`);

testWithTools(
  "the first piece is read back while the rest has not arrived",
  SSH_TOOLS,
  async () => {
    await using board = await FlashBoard.open();
    const reads = await watchDd(board, "");
    const bytes = image();
    board.served.set("/i.img", () =>
      ReadableStream.from((async function* () {
        yield bytes.slice(0, PIECE + 3 * MIB);
        await until(async () => (await reads()).some(ofPiece(0)));
        yield bytes.slice(PIECE + 3 * MIB);
      })()));
    await board.flash("i.img", { wire: "original" });
    assertSame(await Deno.readFile(board.medium), bytes);
    assertStringIncludes(board.said(), `Read back ${bytes.length} bytes`);
    assert((await reads()).some(ofPiece(1)));
  },
);

testWithTools("a control host whose sh and dd are busybox's reads back meanwhile as well", [
  ...SSH_TOOLS,
  "busybox",
], async () => {
  await using board = await FlashBoard.open();
  await board.server.program("sh", 'exec busybox sh "$@"');
  const reads = await watchDd(board, 'exec busybox dd "$@"');
  const bytes = image();
  board.served.set("/i.img", bytes);
  await board.flash("i.img", { wire: "original" });
  assertSame(await Deno.readFile(board.medium), bytes);
  assert((await reads()).some(ofPiece(1)));
  assertStringIncludes(board.said(), `Read back ${bytes.length} bytes`);
});

testWithTools(
  "a medium that is being written to is not read before it has time",
  SSH_TOOLS,
  async () => {
    await using board = await FlashBoard.open();
    const reads = await watchDd(board, "");
    const looks = join(board.server.root, "looks");
    const isSynced = join(board.server.root, "synced");
    // As the kernel says it of a block device: reads and writes under way.
    await board.server.program(
      "cat",
      `case "$*" in */inflight) echo x >> "${looks}"; test -e "${isSynced}" && echo "  0  0" || ` +
        `echo "  0  1"; exit;; esac; exec /usr/bin/cat "$@"`,
    );
    const bytes = image();
    const seen: number[] = [];
    board.served.set("/i.img", () =>
      ReadableStream.from((async function* () {
        yield bytes.slice(0, PIECE + MIB);
        // It has looked again.
        await until(async () => (await Deno.readTextFile(looks).catch(() => "")).length > 4);
        seen.push((await reads()).filter(ofPiece(0)).length);
        await Deno.writeTextFile(isSynced, "");
        await until(async () => (await reads()).some(ofPiece(0)));
        yield bytes.slice(PIECE + MIB);
      })()));
    await board.flash("i.img", { wire: "original" });
    assertEquals(seen, [0]);
    assertSame(await Deno.readFile(board.medium), bytes);
  },
);

testWithTools(
  "when all is written, what is left to read back is shown",
  SSH_TOOLS,
  async () => {
    await using board = await FlashBoard.open();
    const isSynced = join(board.server.root, "synced");
    await watchDd(board, `case "$*" in *if=/dev/null*) : > "${isSynced}";; esac`);
    await board.server.program(
      "cat",
      `case "$*" in */inflight) test -e "${isSynced}" && echo "  0  0" || echo "  0  1"; exit;; esac; ` +
        `exec /usr/bin/cat "$@"`,
    );
    board.served.set("/i.img", image());
    await board.flash("i.img", { wire: "original" });
    assertMatch(
      board.said(),
      /Reading back the rest of what was written to \S+: \d+ % of \d+\.\d MB/,
    );
  },
);

testWithTools(
  "a medium that cannot be read in the middle ends it, and says why",
  SSH_TOOLS,
  async () => {
    await using board = await FlashBoard.open();
    await watchDd(
      board,
      `case "$*" in *if=*skip=${PIECE}*) echo "dd: Input/output error" >&2; exit 1;; esac`,
    );
    board.served.set("/i.img", image());
    await assertRejects(
      () => board.flash("i.img", { wire: "original" }),
      ProvisioningError,
      `Cannot verify what was written to ${board.medium}: 'dd' cannot read it: dd: Input/output error`,
    );
  },
);

testWithTools("a medium that cannot be written in the middle says so", SSH_TOOLS, async () => {
  await using board = await FlashBoard.open();
  const reads = await watchDd(
    board,
    `case "$*" in *count=32*) test "$(stat -c %s "${board.medium}")" = 0 || ` +
      `{ echo "dd: Input/output error" >&2; exit 1; };; esac`,
  );
  board.served.set("/i.img", image());
  const error = await assertRejects(
    () => board.flash("i.img", { wire: "original" }),
    ProvisioningError,
  );
  assertStringIncludes(
    error.message,
    `Cannot write the image to ${board.medium}: 'cat | dd' ended with exit status 1: dd: Input/`,
  );
  assert(!(await reads()).some(ofPiece(1)));
});

testWithTools(
  "what another part of the image overwrites later is found in the end",
  SSH_TOOLS,
  async () => {
    await using board = await FlashBoard.open();
    // A card with less in it than it says: its beginning has what is written behind its end.
    const reads = await watchDd(
      board,
      `case "$*" in *skip=*) /usr/bin/dd "$@"; exit;; ` +
        `*if=/dev/null*) until test "$(grep -c "skip=0 " "${board.server.root}/reads")" = 3; do ` +
        `sleep 0.02; done; ` +
        `head -c 100000 /dev/urandom | /usr/bin/dd of="${board.medium}" conv=notrunc 2>/dev/null;; esac`,
    );
    board.served.set("/i.img", image());
    await assertRejects(
      () => board.flash("i.img", { wire: "original" }),
      ProvisioningError,
      "after more had been written no longer",
    );
    assert((await reads()).some(ofPiece(1)));
  },
);

testWithTools(
  "what crosses the connection raw is compared with what this host has unpacked",
  [...SSH_TOOLS, "xz"],
  async () => {
    await using board = await FlashBoard.open();
    const bytes = image().slice(0, 3 * MIB + 1234);
    const file = join(board.lab.root, "i.img");
    await Deno.writeFile(file, bytes);
    board.served.set("/i.img.xz", await Deno.readFile(await xz(file)));
    await board.flash("i.img.xz", { wire: "raw" });
    assertSame(await Deno.readFile(board.medium), bytes);
    assertStringIncludes(board.said(), `Read back ${bytes.length} bytes`);

    // Whatever loses it, before the far side's programs have seen it.
    const arrives = (how: string) =>
      board.server.program("cat", `[ $# = 0 ] || exec /usr/bin/cat "$@"\n${how}`);
    await arrives("/usr/bin/head -c 1000000; exec /usr/bin/cat >/dev/null");
    for (const verify of [true, false]) {
      const error = await assertRejects(
        () => board.flash("i.img.xz", { wire: "raw", verify }),
        ProvisioningError,
      );
      assertMatch(error.message, /'dd' has written 1000000 bytes, and the image has/);
    }
    await arrives("exec /usr/bin/tr '\\001' '\\002'");
    await assertRejects(
      () => board.flash("i.img.xz", { wire: "raw" }),
      ProvisioningError,
      "does not keep what is written to it",
    );
  },
);

await testWithLoops("a block device that is smaller than the image says that it is full", {
  tools: SSH_TOOLS,
  async test() {
    await using board = await FlashBoard.open();
    await using host = await LoopControlHost.open(board.server);
    const { device } = await host.blockDevice(PIECE + MIB);
    board.served.set("/i.img", image());
    const error = await assertRejects(
      () => board.flash("i.img", { device, wire: "original" }),
      ProvisioningError,
    );
    assertStringIncludes(error.message, "No space left on device");
  },
});

await testWithLoops("a real block device is read back while it is written", {
  tools: SSH_TOOLS,
  async test() {
    await using board = await FlashBoard.open();
    await using host = await LoopControlHost.open(board.server);
    const bytes = image();
    const { device, file } = await host.blockDevice(bytes.length + 4096 - bytes.length % 512);
    const reads = await watchDd(board, "");
    board.served.set("/i.img", bytes);
    await board.flash("i.img", { device, wire: "original" });
    assert((await reads()).some(ofPiece(1)));
    await host.close();
    assertSame((await Deno.readFile(file)).subarray(0, bytes.length), bytes);
  },
});

Deno.test("what a program says of its failure is whole, though another one wrote in the middle of it", () => {
  const stderr = "sh: 1: testflinger: written bytes: 1002\nhead: not found\n" +
    "testflinger: the medium could not be read\n";
  assertThrows(
    () => takeApart({ ended: "exited", status: 1, stdout: "", stderr }, "/dev/sda"),
    ProvisioningError,
    "'dd' cannot read it: sh: 1: head: not found",
  );
});
