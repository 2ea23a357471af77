import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { attachmentPath } from "../../connectors/support/job.ts";
import { ProvisioningError } from "../../connectors/support/errors.ts";
import { rawFromQcow2, sniffImage } from "../../connectors/support/image/image.ts";
import { inStage } from "./support/context.ts";
import { Lab } from "./support/lab.ts";

async function pack(lab: Lab, command: string): Promise<void> {
  const { success, stderr } = await new Deno.Command("sh", { args: ["-c", command], cwd: lab.cwd })
    .output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}

/** As much of a zip archive as tells how many members it has: PKWARE's APPNOTE, 4.3.7 and 4.3.16. */
function zip(members: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(1000);
  bytes.set([0x50, 0x4b, 0x03, 0x04], 0);
  const end = bytes.length - 22 - 7;
  bytes.set([0x50, 0x4b, 0x05, 0x06], end);
  new DataView(bytes.buffer).setUint16(end + 10, members, true);
  bytes.set(new TextEncoder().encode("comment"), end + 22);
  return bytes;
}

Deno.test("images are known by their first bytes, not by their names", async () => {
  await using lab = await Lab.open();
  await pack(
    lab,
    `head -c 4096 /dev/zero > raw; gzip -k raw; xz -k raw; zstd -q raw; bzip2 -k raw; lzma -k raw
     printf '\\004\\042\\115\\030rest' > lz4; printf 'QFI\\373rest' > qcow2`,
  );
  await Deno.writeFile(join(lab.cwd, "zip"), zip(1));
  for (
    const [name, format] of [
      ["raw", "raw"],
      ["raw.gz", "gz"],
      ["raw.xz", "xz"],
      ["raw.lzma", "lzma"],
      ["raw.zst", "zstd"],
      ["raw.bz2", "bz2"],
      ["lz4", "lz4"],
      ["qcow2", "qcow2"],
      ["zip", "zip"],
    ] as const
  ) assertEquals(await sniffImage(join(lab.cwd, name)), format);
});

Deno.test("what is no image is refused, and called what it is", async () => {
  await using lab = await Lab.open();
  await lab.write("page.img", "\n<!DOCTYPE html>\n<title>404</title>");
  await lab.write("note.img", "this is not the image you are looking for\n");
  await lab.write("empty.img", "");
  await Deno.writeFile(join(lab.cwd, "two.img"), zip(2));
  for (
    const [name, why] of [
      ["page.img", "it is a web page"],
      ["note.img", "it is text"],
      ["empty.img", "is empty"],
      ["two.img", "has 2 files"],
      ["absent.img", "Cannot read the image 'absent.img'"],
    ] as const
  ) {
    const error = await assertRejects(() => sniffImage(join(lab.cwd, name)), ProvisioningError);
    assertStringIncludes(error.message, why);
  }
});

Deno.test("a qcow2 image is converted by qemu-img, whose failure is reported", async () => {
  await using lab = await Lab.open();
  const path = join(lab.cwd, "i.qcow2");
  assertEquals(await inStage(lab, (ctx) => rawFromQcow2(ctx, path)), `${path}.raw`);
  assertEquals((await lab.calls())[0]?.args, ["convert", "-O", "raw", path, `${path}.raw`]);
  await lab.fake("qemu-img", "echo corrupt >&2; exit 1");
  await assertRejects(
    () => inStage(lab, (ctx) => rawFromQcow2(ctx, path)),
    ProvisioningError,
    "Cannot convert the image 'i.qcow2': 'qemu-img' ended with exit status 1: corrupt",
  );
});

Deno.test("an attachment is found by its name, and nothing outside of its folder is", async () => {
  await using lab = await Lab.open();
  await Deno.mkdir(`${lab.cwd}/attachments/provision/sub`, { recursive: true });
  await Deno.mkdir(`${lab.cwd}/attachments/provision-other`);
  await lab.write("attachments/provision/a b;touch pwn.img", "x");
  await lab.write("attachments/provision/sub/i.img", "x");
  await lab.write("attachments/provision-other/i.img", "x");
  await lab.write("secret", "x");
  await Deno.symlink("../../secret", `${lab.cwd}/attachments/provision/link`);
  const find = (name: string) =>
    inStage(lab, (ctx) => attachmentPath(ctx, { phase: "provision", name, key: "use_attachment" }));
  const root = await Deno.realPath(lab.cwd);
  for (const name of ["a b;touch pwn.img", "sub/i.img", "sub/../sub/i.img"]) {
    assertEquals(await find(name), join(root, "attachments/provision", name));
  }
  for (
    const [name, why] of [
      ["../../secret", "it is not inside of attachments/provision"],
      ["../provision-other/i.img", "it is not inside of attachments/provision"],
      ["link", "it is not inside of attachments/provision"],
      ["sub", "it is not a file"],
      [".", "it is not inside of attachments/provision"],
      ["absent", "there is no such file in attachments/provision"],
      ["/etc/passwd", "there is no such file"],
      ["", "that is no file name"],
    ] as const
  ) await assertRejects(() => find(name), ProvisioningError, why);
});
