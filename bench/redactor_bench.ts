/**
 * How fast secrets are masked, beside a plain copy of the same chunks. Of the module itself, not of
 * the packaged program.
 */
import { compileSecrets } from "../lib/process/redactor.ts";
import { type BenchRun, type Figure, figure } from "./figures.ts";

const CHUNK_BYTES = 64 * 1024;
const TEXT_BYTES = 16 * 1024 * 1024;
const ROUNDS = 7;
const QUICK_ROUNDS = 3;

/** Always the same numbers, so that runs can be compared. */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

function word(random: () => number, length: number): string {
  return Array.from({ length }, () => LETTERS[Math.floor(random() * LETTERS.length)]).join("");
}

/** Passwords and tokens as they are in use, and two private keys. */
function secrets(): string[] {
  const random = numbers(1);
  const tokens = Array.from({ length: 18 }, (_, i) => word(random, 8 + 2 * i));
  const keys = [1, 2].map(() => {
    const lines = Array.from({ length: 25 }, () => word(random, 64));
    return ["-----BEGIN PRIVATE KEY-----", ...lines, "-----END PRIVATE KEY-----", ""].join("\n");
  });
  return [...tokens, ...keys];
}

function filled(line: () => string): Uint8Array {
  const lines: string[] = [];
  for (let length = 0; length < TEXT_BYTES;) {
    const next = line();
    lines.push(next);
    length += next.length;
  }
  return new TextEncoder().encode(lines.join("").slice(0, TEXT_BYTES));
}

function logText(): Uint8Array {
  const random = numbers(2);
  let time = 0;
  return filled(() => {
    time += random();
    const path = `/usr/lib/${word(random, 6).toLowerCase()}/${word(random, 9).toLowerCase()}.so`;
    return `[${time.toFixed(6).padStart(12)}] systemd[1]: Starting unit ${path}, ` +
      `attempt ${Math.floor(random() * 9)} of 10: usb 1-1: new high-speed device number 4\n`;
  });
}

/** Any of the secrets, changed in each of its lines: these are looked for by themselves, too. */
function anyOf(values: readonly string[], change: (line: string) => string): Uint8Array {
  const random = numbers(3);
  return filled(() => {
    const value = values[Math.floor(random() * values.length)]!.trimEnd();
    return value.split("\n").map(change).join("\n");
  });
}

function chunksOf(text: Uint8Array): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < text.length; at += CHUNK_BYTES) {
    chunks.push(text.subarray(at, at + CHUNK_BYTES));
  }
  return chunks;
}

/** Milliseconds for the whole text, one value a round. */
function times(
  text: Uint8Array,
  rounds: number,
  work: (chunks: Uint8Array[]) => void,
): number[] {
  const chunks = chunksOf(text);
  return Array.from({ length: rounds }, () => {
    const start = performance.now();
    work(chunks);
    return performance.now() - start;
  });
}

function measureIn(
  rounds: number,
  what: string,
  values: readonly string[],
  text: Uint8Array,
): Figure {
  const compiled = compileSecrets(values);
  const masked = times(text, rounds, (chunks) => {
    const stream = compiled.stream();
    let bytes = 0;
    for (const chunk of chunks) bytes += stream.push(chunk).length;
    bytes += stream.flush().length;
    if (bytes === 0) throw new Error("nothing came out");
  });
  const target = new Uint8Array(CHUNK_BYTES);
  const copied = times(text, rounds, (chunks) => {
    for (const chunk of chunks) target.set(chunk);
  });
  return figure({
    what: `masking 16 MiB: ${what}`,
    unit: "ms",
    peer: { what: "a copy", values: copied },
  }, masked);
}

/** Ordinary text, and what is hard for a search. */
export function bench({ quick }: BenchRun): Promise<Figure[]> {
  const measure = (what: string, values: readonly string[], text: Uint8Array) =>
    measureIn(quick ? QUICK_ROUNDS : ROUNDS, what, values, text);
  const values = secrets();
  const run = "a".repeat(4096);
  const random = numbers(5);
  return Promise.resolve([
    measure("log text", values, logText()),
    measure("log text, a secret in each 1 MB", values, seeded(logText(), values, 1_000_000)),
    measure("log text, a secret in each KB", values, seeded(logText(), values, 1_000)),
    measure(
      "near misses: secrets without their end",
      values,
      anyOf(values, (line) => line.slice(0, -1)),
    ),
    measure(
      "near misses: secrets without their beginning",
      values,
      anyOf(values, (line) => line.slice(1)),
    ),
    measure("nothing but secrets", values, anyOf(values, (line) => line)),
    measure("aaa..., secrets a{4096}b and ba{4096}", [`${run}b`, `b${run}`], filled(() => run)),
    measure("base64 text", values, filled(() => `${word(random, 76)}\n`)),
  ]);
}

function seeded(text: Uint8Array, values: readonly string[], every: number): Uint8Array {
  const random = numbers(4);
  const encoder = new TextEncoder();
  for (let at = 0; at + every < text.length; at += every) {
    text.set(encoder.encode(values[Math.floor(random() * 18)]), at);
  }
  return text;
}
