import { assertEquals } from "@std/assert";
import { wireOf } from "../../connectors/support/image/wire.ts";

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
