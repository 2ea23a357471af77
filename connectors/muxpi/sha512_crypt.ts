import { createHash, randomBytes } from "node:crypto";

const ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SALT_LENGTH = 16;
const ROUNDS = 5_000;
const DIGEST_BYTES = 64;

/** A new salt. */
export function randomSalt(): string {
  return [...randomBytes(SALT_LENGTH)].map((byte) => ALPHABET[byte % 64]).join("");
}

/**
 * The hash of a password as /etc/shadow has it: SHA-512 with 5000 rounds, `$6$<salt>$<hash>`.
 *
 * @param salt at most 16 of the characters `./0-9A-Za-z`.
 * @see https://www.akkadia.org/drepper/SHA-crypt.txt whose numbered steps these are.
 */
export function sha512Crypt(password: string, salt: string): string {
  const key = new TextEncoder().encode(password);
  const saltBytes = new TextEncoder().encode(salt);

  // 4-8: B
  const b = digest([key, saltBytes, key]);
  // 1-3, 9-12: A
  const parts = [key, saltBytes, repeated(b, key.length)];
  for (let bits = key.length; bits > 0; bits >>= 1) parts.push(bits & 1 ? b : key);
  let result = digest(parts);
  // 13-16: P
  const p = repeated(digest(Array<Uint8Array>(key.length).fill(key)), key.length);
  // 17-20: S
  const s = repeated(
    digest(Array<Uint8Array>(16 + (result[0] ?? 0)).fill(saltBytes)),
    saltBytes.length,
  );
  // 21
  for (let round = 0; round < ROUNDS; round++) {
    const odd = round % 2 === 1;
    result = digest([
      odd ? p : result,
      ...(round % 3 === 0 ? [] : [s]),
      ...(round % 7 === 0 ? [] : [p]),
      odd ? result : p,
    ]);
  }
  return `$6$${salt}$${encode(result)}`;
}

function digest(parts: readonly Uint8Array[]): Uint8Array {
  const hash = createHash("sha512");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

function repeated(bytes: Uint8Array, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => bytes[i % bytes.length] ?? 0);
}

/** 22: groups of three bytes, each 21 further, beginning one group further each time. */
function encode(bytes: Uint8Array): string {
  let text = "";
  const third = (DIGEST_BYTES - 1) / 3;
  for (let i = 0; i < third; i++) {
    const order = [0, 1, 2].map((k) => bytes[i + third * ((k + i) % 3)] ?? 0);
    text += characters(((order[0] ?? 0) << 16) | ((order[1] ?? 0) << 8) | (order[2] ?? 0), 4);
  }
  return text + characters(bytes[DIGEST_BYTES - 1] ?? 0, 2);
}

function characters(value: number, count: number): string {
  return Array.from({ length: count }, (_, i) => ALPHABET[(value >> (6 * i)) & 63]).join("");
}
