const DECIMAL: Readonly<Record<string, number>> = { "": 1, B: 1, K: 1e3, M: 1e6, G: 1e9, T: 1e12 };
const BINARY: Readonly<Record<string, number>> = {
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
};

const SIZE = /^(\d+(?:\.\d+)?)\s*([KMGT]?iB|[BKMGT]?)$/i;

/**
 * Bytes of a size as layouts have it: a number, or text such as `500M` (decimal) or `1.5GiB`.
 *
 * @returns undefined when it is no size, or none that can be counted exactly.
 */
export function parseSize(size: string | number): number | undefined {
  const [, count, unit] = SIZE.exec(String(size).trim()) ?? [];
  if (count === undefined || unit === undefined) return undefined;
  const factor = DECIMAL[unit.toUpperCase()] ?? BINARY[unit.toUpperCase()];
  if (factor === undefined) return undefined;
  const bytes = Math.round(Number(count) * factor);
  return bytes > 0 && Number.isSafeInteger(bytes) ? bytes : undefined;
}
