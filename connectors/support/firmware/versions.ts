/**
 * Versions of firmware. Vendors write the same version in several ways: `U30 v2.76 (02/09/2023)` in
 * the machine is `2.76_02-09-2023` in the repository.
 */

/**
 * The numbers of a version, from the most to the least significant: what follows the last `v`, up to
 * the first letter. Where nothing is left of it, the text from its first digit on. `0x31` is one
 * hexadecimal number. Text without a digit has no numbers.
 */
export function versionNumbers(text: string): number[] {
  const trimmed = text.trim();
  if (/^0x[0-9a-f]+$/i.test(trimmed)) return [Number(trimmed)];
  const behindV = trimmed.slice(trimmed.lastIndexOf("v") + 1);
  const numbers = numbersIn(/^[^A-Za-z]*/.exec(behindV)?.[0] ?? "");
  if (numbers.length > 0) return numbers;
  return numbersIn(/\d[^A-Za-z]*/.exec(trimmed)?.[0] ?? "");
}

function numbersIn(text: string): number[] {
  return (text.match(/\d+/g) ?? []).map(Number);
}

/** Negative where `a` is older than `b`, 0 where they are the same, positive where it is newer. */
export function compareVersions(a: string, b: string): number {
  const left = versionNumbers(a);
  const right = versionNumbers(b);
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
