/** A tar archive put together member by member, with nothing checked: also what no tool would write. */

const BLOCK_BYTES = 512;
const encoder = new TextEncoder();

/** A member as it goes into an archive. */
export interface BuiltMember {
  name: string;
  /** Type flag, `0` by default. */
  type?: string;
  target?: string;
  data?: Uint8Array;
  mode?: number;
  /** A PAX header with these records goes before it. */
  pax?: Record<string, string>;
}

/** An archive of these members, with its end mark. */
export function tarOf(members: BuiltMember[]): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const { name, type = "0", target = "", data = new Uint8Array(), mode, pax } of members) {
    if (pax) {
      const records = paxRecords(pax);
      parts.push(header({ name: "pax", type: "x", target: "", size: records.length }));
      parts.push(records, padding(records.length));
    }
    parts.push(header({ name, type, target, size: data.length, mode }));
    parts.push(data, padding(data.length));
  }
  parts.push(new Uint8Array(2 * BLOCK_BYTES));
  return concatenated(parts);
}

/** Sets the checksum of the header at `offset` right again, after something in it was changed. */
export function mendChecksum(archive: Uint8Array, offset: number): void {
  const block = archive.subarray(offset, offset + BLOCK_BYTES);
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.set(encoder.encode(`${sum.toString(8).padStart(6, "0")}\0 `), 148);
}

/** One array of all these. */
export function concatenated(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let filled = 0;
  for (const part of parts) {
    whole.set(part, filled);
    filled += part.length;
  }
  return whole;
}

function header(
  { name, type, target, size, mode = 0o644 }: {
    name: string;
    type: string;
    target: string;
    size: number;
    mode?: number | undefined;
  },
): Uint8Array {
  const block = new Uint8Array(BLOCK_BYTES);
  const put = (offset: number, length: number, text: string) =>
    block.set(encoder.encode(text).subarray(0, length), offset);
  put(0, 100, name);
  put(100, 8, `${mode.toString(8).padStart(7, "0")}\0`);
  put(124, 12, `${size.toString(8).padStart(11, "0")}\0`);
  put(136, 12, "14524536400\0");
  put(156, 1, type);
  put(157, 100, target);
  put(257, 8, "ustar\u000000");
  mendChecksum(block, 0);
  return block;
}

function paxRecords(records: Record<string, string>): Uint8Array {
  return concatenated(
    Object.entries(records).map(([key, value]) => {
      const rest = encoder.encode(` ${key}=${value}\n`);
      let length = rest.length;
      while (String(length).length + rest.length !== length) length++;
      return concatenated([encoder.encode(String(length)), rest]);
    }),
  );
}

function padding(length: number): Uint8Array {
  return new Uint8Array((BLOCK_BYTES - length % BLOCK_BYTES) % BLOCK_BYTES);
}
