/** Block maps, beside what bmaptool makes of the same image and map. */
import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { createHash } from "node:crypto";
import { join } from "node:path";
import type { ConnectorContext } from "../../connectors/context.ts";
import { ProvisioningError } from "../../connectors/support/errors.ts";
import { parseBmap } from "../../connectors/support/image/bmap.ts";
import { ImageCache } from "../../connectors/support/image/cache.ts";
import { findBmap } from "../../connectors/support/image/find_bmap.ts";
import { incompressible, xz } from "../support/disk_images.ts";
import { output, SSH_TOOLS, testWithTools } from "../support/sshd.ts";
import { inStage } from "./support/context.ts";
import { assertSame, FlashBoard } from "./support/flash_board.ts";
import { Lab } from "./support/lab.ts";
import { httpStub } from "./support/stubs.ts";
import { prepareTree } from "./support/tree_control_host.ts";

const BLOCK = 4096;
const TOOLS = [...SSH_TOOLS, "bmaptool", "xz", "zstd", "lz4"];

/** What is on the medium before, of which the unmapped blocks keep theirs. */
const BEFORE = 0xaa;

/** An image of 5 MiB and a bit, with holes; among what is mapped there is a block of zeros. */
function holedImage(): { bytes: Uint8Array<ArrayBuffer>; mapped: (readonly [number, number])[] } {
  const bytes = new Uint8Array(5 * 1024 * 1024 + 1234);
  const mapped = [[0, 2], [7, 8], [100, 700], [1100, 1281]] as const;
  for (const [from, to] of mapped) {
    bytes.set(
      incompressible(Math.min(to * BLOCK, bytes.length) - from * BLOCK),
      from * BLOCK,
    );
  }
  bytes.fill(0, 300 * BLOCK, 303 * BLOCK);
  return { bytes, mapped: [...mapped] };
}

/** Makes files of the image (with real holes), of its map as bmaptool makes it, and packed ones. */
async function makeFiles(folder: string) {
  const { bytes, mapped } = holedImage();
  const image = join(folder, "i.img");
  {
    using file = await Deno.open(image, { write: true, createNew: true });
    for (const [from, to] of mapped) {
      await file.seek(from * BLOCK, Deno.SeekMode.Start);
      const piece = bytes.subarray(from * BLOCK, to * BLOCK);
      assertEquals(await file.write(piece), piece.length);
    }
    await file.truncate(bytes.length);
  }
  const map = join(folder, "i.img.bmap");
  await output(["bmaptool", "create", image, "-o", map]);
  await output(["xz", "-k", "-0", image]);
  const mappedSize = mapped.reduce(
    (sum, [from, to]) => sum + Math.min(to * BLOCK, bytes.length) - from * BLOCK,
    0,
  );
  return { bytes, mapped, mappedSize, image, map, mapText: await Deno.readTextFile(map) };
}

/** A board whose medium has something else on it, with the files of the image. */
class Board extends FlashBoard {
  files!: Awaited<ReturnType<typeof makeFiles>>;

  static override async open(): Promise<Board> {
    const board = new Board(await Lab.open(), await FlashBoard.controlHost());
    await prepareTree(board.server);
    board.files = await makeFiles(board.lab.root);
    await board.soil();
    return board;
  }

  /** Puts something else on the medium, which is larger than the image. */
  async soil(): Promise<void> {
    await Deno.writeFile(this.medium, new Uint8Array(6 * 1024 * 1024).fill(BEFORE));
  }

  /** What the medium must have in the end. */
  expected(): Uint8Array {
    const { bytes, mapped } = this.files;
    const all = new Uint8Array(6 * 1024 * 1024).fill(BEFORE);
    for (const [from, to] of mapped) {
      all.set(bytes.subarray(from * BLOCK, to * BLOCK), from * BLOCK);
    }
    return all;
  }

  async serve(...names: string[]): Promise<void> {
    for (const name of names) {
      this.served.set(`/${name}`, await Deno.readFile(join(this.lab.root, name)));
    }
  }
}

testWithTools(
  "with a block map, what is mapped is as bmaptool copies it, and the rest as it was",
  TOOLS,
  async () => {
    await using board = await Board.open();
    await board.serve("i.img.xz", "i.img.bmap");
    await board.flash("i.img.xz");
    const ours = await Deno.readFile(board.medium);
    assertSame(ours, board.expected());
    assertStringIncludes(board.said(), "Read back");

    const { bytes, mapped, image, map } = board.files;
    const copy = join(board.lab.root, "copy");
    await output(["bmaptool", "copy", "--bmap", map, `${image}.xz`, copy]);
    const theirs = await Deno.readFile(copy);
    assertEquals(theirs.length, bytes.length);
    for (const [from, to] of mapped) {
      const end = Math.min(to * BLOCK, bytes.length);
      assertSame(ours.subarray(from * BLOCK, end), theirs.subarray(from * BLOCK, end));
    }
  },
);

testWithTools(
  "what is mapped crosses the connection in any form, of a packed image and a raw one",
  TOOLS,
  async () => {
    await using board = await Board.open();
    await board.serve("i.img", "i.img.xz", "i.img.bmap");
    for (const wire of ["zstd", "lz4", "raw", "original"] as const) {
      for (const name of ["i.img.xz", "i.img"]) {
        await board.soil();
        await board.flash(name, { wire, verify: false });
        assertSame(await Deno.readFile(board.medium), board.expected(), `${name} as ${wire}`);
      }
    }
  },
);

testWithTools(
  "the original is unpacked on the control host, which throws away what is not mapped",
  TOOLS,
  async () => {
    await using board = await Board.open();
    await board.serve("i.img.xz", "i.img.bmap");
    await board.server.program("unxz", `: > "${board.server.root}/unpacked"; exec /usr/bin/unxz`);
    for (const verify of [true, false]) {
      await board.soil();
      await board.flash("i.img.xz", { wire: "original", verify });
      assertSame(await Deno.readFile(board.medium), board.expected());
    }
    assertEquals(await Deno.readTextFile(join(board.server.root, "unpacked")), "");
    assertStringIncludes(board.said(), `Read back ${board.files.mappedSize} bytes`);

    await board.server.program("unxz", `/usr/bin/unxz; echo "unxz: broken" >&2; exit 1`);
    await assertRejects(
      () => board.flash("i.img.xz", { wire: "original" }),
      ProvisioningError,
      "'unxz' cannot unpack it on the control host: unxz: broken",
    );
    await board.server.program("unxz", `/usr/bin/unxz | head -c 100000`);
    await assertRejects(
      () => board.flash("i.img.xz", { wire: "original" }),
      ProvisioningError,
      "the image broke off behind ",
    );
  },
);

testWithTools(
  "a control host whose sh and dd are busybox's places ranges as well",
  [...TOOLS, "busybox"],
  async () => {
    await using board = await Board.open();
    await board.serve("i.img.xz", "i.img.bmap");
    await board.server.program("dd", 'exec busybox dd "$@"');
    await board.server.program("sh", 'exec busybox sh "$@"');
    for (const wire of ["auto", "original"] as const) {
      await board.soil();
      await board.flash("i.img.xz", { wire });
      assertSame(await Deno.readFile(board.medium), board.expected());
    }
  },
);

testWithTools(
  "an image that is not the one that its block map is of is never taken for written",
  TOOLS,
  async () => {
    await using board = await Board.open();
    await board.serve("i.img.bmap");
    const { bytes } = board.files;
    const changed = bytes.slice();
    changed[500 * BLOCK] = 255 - (changed[500 * BLOCK] ?? 0);
    const longer = new Uint8Array(bytes.length + 1);
    longer.set(bytes);
    for (
      const [image, why] of [
        [changed, "from 409600 on have the checksum"],
        [bytes.slice(0, -1), `that has ${bytes.length} bytes, and this one has only`],
        [longer, `that has ${bytes.length} bytes, and this one has more`],
      ] as const
    ) {
      board.served.set("/i.img", image);
      await assertRejects(() => board.flash("i.img"), ProvisioningError, why);
      const file = join(board.lab.root, `${image.length}-${image[500 * BLOCK]}`);
      await Deno.writeFile(file, image);
      board.served.set("/i.img.xz", await Deno.readFile(await xz(file)));
      await assertRejects(
        () => board.flash("i.img.xz", { wire: "original" }),
        ProvisioningError,
        why,
      );
    }
  },
);

testWithTools(
  "a packed image that breaks off fails with the words of the program that unpacks it",
  TOOLS,
  async () => {
    await using board = await Board.open();
    await board.serve("i.img.xz", "i.img.bmap");
    board.served.set(
      "/i.img.xz",
      await Deno.readFile(`${board.files.image}.xz`).then((all) => all.slice(0, -1000)),
    );
    for (const wire of ["auto", "original"] as const) {
      await assertRejects(
        () => board.flash("i.img.xz", { wire }),
        ProvisioningError,
        "Unexpected end of input",
      );
    }
  },
);

testWithTools(
  "a medium that is too small, cannot be written, or forgets is noticed",
  TOOLS,
  async () => {
    await using board = await Board.open();
    await board.serve("i.img.xz", "i.img.bmap");
    await board.server.program(
      "dd",
      'case "$*" in *seek=376832*) echo "dd: no space left" >&2; exit 1;; esac; exec /usr/bin/dd "$@"',
    );
    await assertRejects(() => board.flash("i.img.xz"), ProvisioningError, "no space left");
    await board.server.program("dd", "echo hello");
    await assertRejects(() => board.flash("i.img.xz"), ProvisioningError, "broke off");
    // Whether it is read back meanwhile or, for want of direct reads, in the end.
    for (const refused of ["nothing", "*iflag=direct*"]) {
      await board.server.program(
        "dd",
        `case "$*" in ${refused}) exit 1;; *seek=376832*) /usr/bin/dd "$@" && ` +
          `printf x | /usr/bin/dd of="${board.medium}" seek=500000 bs=1 conv=notrunc 2>/dev/null; ` +
          `exit;; esac; exec /usr/bin/dd "$@"`,
      );
      await assertRejects(
        () => board.flash("i.img.xz"),
        ProvisioningError,
        `The medium does not keep what is written to it: of ${board.files.mappedSize} bytes`,
      );
    }
  },
);

testWithTools(
  "without a program here that unpacks the image every block of it is written",
  TOOLS,
  async () => {
    await using board = await Board.open();
    await output(["lz4", "-q", board.files.image, `${board.files.image}.lz4`]);
    await board.serve("i.img.lz4", "i.img.bmap");
    Object.defineProperty(board.server, "env", {
      value: { ...board.server.env, PATH: board.server.env.PATH?.split(":")[0] },
    });
    await board.flash("i.img.lz4", { wire: "original" });
    const medium = await Deno.readFile(board.medium);
    assertSame(medium.subarray(0, board.files.bytes.length), board.files.bytes);
    assertStringIncludes(board.said(), "has no program to unpack the image with (lz4cat)");
  },
);

testWithTools("the job chooses the block map, or none", TOOLS, async () => {
  await using board = await Board.open();
  await board.serve("i.img", "i.img.bmap");
  await board.flash("i.img", { bmap: "none" });
  assertSame(
    (await Deno.readFile(board.medium)).subarray(0, board.files.bytes.length),
    board.files.bytes,
  );
  board.served.set("/elsewhere/map", board.files.mapText);
  await board.soil();
  await board.flash("i.img", { bmap: `${board.images.url}/elsewhere/map` });
  assertSame(await Deno.readFile(board.medium), board.expected());
  await assertRejects(
    () => board.flash("i.img", { bmap: `${board.images.url}/nowhere` }),
    ProvisioningError,
    "/nowhere: the server answered with status 404",
  );
});

/** A map without checksums, of an image of three blocks and a half. */
const MAP = `<?xml version="1.0" ?>
<!-- <ImageSize> 1 </ImageSize> -->
<bmap version="1.2">
  <ImageSize> 14336 </ImageSize> <BlockSize> 4096 </BlockSize> <BlocksCount> 4 </BlocksCount>
  <MappedBlocksCount> 2 </MappedBlocksCount>
  <BlockMap>
    <Range> 0 </Range>
    <Range> 3 </Range>
  </BlockMap>
</bmap>
`;

Deno.test("block maps of all versions are read: without checksums, with SHA-1, with any", () => {
  const ranges = (text: string) =>
    parseBmap(text, "m").ranges.map(({ at, length }) => [at, length]);
  assertEquals(ranges(MAP), [[0, 4096], [12_288, 2048]]);
  const zeros = "0".repeat(40);
  const sha1 = MAP.replace("1.2", "1.3").replace(
    "<BlockMap>",
    `<BmapFileSHA1> ${zeros} </BmapFileSHA1><BlockMap>`,
  )
    .replace("<Range> 0", `<Range sha1="${"a".repeat(40)}"> 0`);
  const digest = createHash("sha1").update(sha1).digest("hex");
  const map = parseBmap(sha1.replace(zeros, digest), "m");
  assertEquals(map.ranges[0]?.checksum, "a".repeat(40));
  assertEquals([map.digest, map.imageSize, map.mappedSize], ["sha1", 14_336, 6144]);
});

Deno.test("a block map that is damaged or contradicts itself is refused, and why is said", () => {
  for (
    const [change, why] of [
      [(text: string) => text.replace("1.2", "3.0"), "its version is 3"],
      [(text: string) => text.slice(0, -20), "it is not a whole one"],
      [(text: string) => text.replace(" 14336 ", " many "), "its ImageSize is 'many'"],
      [
        (text: string) => text.replace("<BlockSize> 4096 </BlockSize>", ""),
        "its BlockSize is missing",
      ],
      [
        (text: string) => text.replace(" 14336 ", " 20000 "),
        "4 blocks of 4096 bytes are no image of 20000",
      ],
      [
        (text: string) => text.replace("> 3 <", "> 4 <"),
        "its range '<Range> 4 </Range>' is out of place",
      ],
      [(text: string) => text.replace("> 0 <", "> 3 <"), "is out of place"],
      [(text: string) => text.replace("> 0 <", "> 1-0 <"), "is out of place"],
      [(text: string) => text.replace("> 0 <", "> 0-1 <"), "its ranges have 3 blocks, expected 2"],
      [
        (text: string) => text.replace("<BlockMap>", "<ChecksumType>crc7</ChecksumType><BlockMap>"),
        "ChecksumType 'crc7'",
      ],
      [
        (text: string) =>
          text.replace("<BlockMap>", `<BmapFileSHA1>${"b".repeat(40)}</BmapFileSHA1><BlockMap>`),
        "its own checksum is",
      ],
    ] as const
  ) {
    const error = assertThrows(() => parseBmap(change(MAP), "http://x/i.bmap"), ProvisioningError);
    assertStringIncludes(error.message, "The block map http://x/i.bmap cannot be used");
    assertStringIncludes(error.message, why);
  }
});

Deno.test("a block map that is made to be slow to read is not", () => {
  const many = 500_000;
  for (const part of ["<!--", "<Range ", "<ImageSize>", "<ImageSize> ", "</bmap> "]) {
    // With a time that grows with the square of the length it would not come back for minutes.
    try {
      parseBmap(MAP.replace("<BlockMap>", `<BlockMap>${part.repeat(many)}`), "m");
    } catch (error) {
      assertEquals(error instanceof ProvisioningError, true);
    }
  }
});

async function findBeside(lab: Lab, image: string, cache?: ImageCache) {
  return await inStage(
    lab,
    (ctx: ConnectorContext) =>
      findBmap(ctx, { bmap: "beside the image", image: new URL(image), cache }),
  );
}

Deno.test("a block map that is not there costs one request a day, and nothing else", async () => {
  await using lab = await Lab.open();
  await using images = httpStub(() => new Response("no", { status: 404 }));
  const opened = await ImageCache.open(join(lab.root, "cache"), {
    maxBytes: 1e12,
    minFreeBytes: 0,
  });
  if (!opened.ok) throw new Error(opened.why);
  const { cache } = opened;
  const url = `${images.url}/i.img`;
  assertEquals(await findBeside(lab, url, cache), undefined);
  assertEquals(await findBeside(lab, url, cache), undefined);
  assertEquals(images.requests.map(({ path }) => path), ["/i.img.bmap"]);
  await lab.clock.pauses.sleep(24 * 3_600_000);
  await findBeside(lab, url, cache);
  assertEquals(images.requests.length, 2);
});

Deno.test("the name that most give a block map is looked for, too, in the same moment", async () => {
  await using lab = await Lab.open();
  const both = Promise.withResolvers<void>();
  await using images = httpStub(async () => {
    if (images.requests.length === 2) both.resolve();
    await both.promise;
    return new Response(MAP);
  });
  assertEquals((await findBeside(lab, `${images.url}/a/i.img.xz?token=1`))?.imageSize, 14_336);
  assertEquals(images.requests.map(({ path }) => path).sort(), [
    "/a/i.img.bmap",
    "/a/i.img.xz.bmap",
  ]);
});

Deno.test("a server that is broken, or that has a page for everything, has no block map", async () => {
  await using lab = await Lab.open();
  for (
    const answer of [
      () => new Response("oh", { status: 500 }),
      () => new Response("<!doctype html><title>Not found</title>"),
      () => new Response(new Uint8Array(100_000)),
    ]
  ) {
    await using images = httpStub(answer);
    assertEquals(await findBeside(lab, `${images.url}/i.img`), undefined);
  }
  assertStringIncludes(lab.log.join("\n"), "every block is written");
});

Deno.test("a block map of many megabytes is read whole, and one that is no end of them is none", async () => {
  await using lab = await Lab.open();
  let length = 10_000_000;
  await using images = httpStub(() => new Response(MAP + " ".repeat(length)));
  assertEquals((await findBeside(lab, `${images.url}/i.img`))?.imageSize, 14_336);
  length = 40_000_000;
  assertEquals(await findBeside(lab, `${images.url}/i.img`), undefined);
  assertStringIncludes(lab.log.join("\n"), "the answer is longer than 32 MiB");
});

Deno.test("a block map beside an attachment is used, but no link to somewhere else", async () => {
  await using lab = await Lab.open();
  const image = join(lab.root, "i.img");
  await lab.write("map", MAP);
  await Deno.symlink(join(lab.cwd, "map"), `${image}.bmap`);
  assertEquals(await findBeside(lab, `file://${image}`), undefined);
  await Deno.remove(`${image}.bmap`);
  await Deno.writeTextFile(`${image}.bmap`, MAP);
  assertEquals((await findBeside(lab, `file://${image}`))?.mappedSize, 6144);
});
