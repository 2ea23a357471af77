const MACHINE_OFFSET = 18;
const MAGIC = [0x7f, 0x45, 0x4c, 0x46];

/** `e_machine` of a program; `undefined` for what is no readable ELF file. */
export async function elfMachine(file: string): Promise<number | undefined> {
  const head = new Uint8Array(MACHINE_OFFSET + 2);
  try {
    using opened = await Deno.open(file);
    for (let filled = 0; filled < head.length;) {
      const count = await opened.read(head.subarray(filled));
      if (count === null) return undefined;
      filled += count;
    }
  } catch {
    return undefined;
  }
  if (MAGIC.some((byte, index) => head[index] !== byte)) return undefined;
  return new DataView(head.buffer).getUint16(MACHINE_OFFSET, true);
}
