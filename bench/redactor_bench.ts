/**
 * How fast secrets are masked: MB/s, and how often a plain copy of the same chunks could be made in
 * that time. Run it with `deno run bench/redactor_bench.ts`.
 */
import { compileSecrets } from "../lib/process/redactor.ts";

const CHUNK_BYTES = 64 * 1024;
const TEXT_BYTES = 16 * 1024 * 1024;
/** Of several rounds the fastest counts: what else the machine does only makes it slower. */
const ROUNDS = 7;

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

/** Nothing but secrets that break off before their last character. */
function nearMisses(values: readonly string[]): Uint8Array {
  const random = numbers(3);
  return filled(() => values[Math.floor(random() * values.length)]!.slice(0, -2));
}

/** Nothing but the ends of secrets, as the search goes backwards. */
function nearMissesBackwards(values: readonly string[]): Uint8Array {
  const random = numbers(3);
  return filled(() => values[Math.floor(random() * values.length)]!.trimEnd().slice(1));
}

function chunksOf(text: Uint8Array): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < text.length; at += CHUNK_BYTES) {
    chunks.push(text.subarray(at, at + CHUNK_BYTES));
  }
  return chunks;
}

function megabytesPerSecond(text: Uint8Array, work: (chunks: Uint8Array[]) => void): number {
  const chunks = chunksOf(text);
  let best = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    work(chunks);
    best = Math.min(best, performance.now() - start);
  }
  return text.length / 1e6 / (best / 1e3);
}

function measure(name: string, values: readonly string[], text: Uint8Array): void {
  const compiled = compileSecrets(values);
  const masked = megabytesPerSecond(text, (chunks) => {
    const stream = compiled.stream();
    let bytes = 0;
    for (const chunk of chunks) bytes += stream.push(chunk).length;
    bytes += stream.flush().length;
    if (bytes === 0) throw new Error("nothing came out");
  });
  const target = new Uint8Array(CHUNK_BYTES);
  const copied = megabytesPerSecond(text, (chunks) => {
    for (const chunk of chunks) target.set(chunk);
  });
  console.log(
    `${name.padEnd(46)} ${masked.toFixed(0).padStart(6)} MB/s   ` +
      `plain copy ${copied.toFixed(0).padStart(6)} MB/s   ratio 1:${(copied / masked).toFixed(0)}`,
  );
}

const values = secrets();
const started = performance.now();
compileSecrets(values);
console.log(`${values.length} secrets, prepared in ${(performance.now() - started).toFixed(0)} ms`);
measure("log text", values, logText());
measure("log text, a secret in each 1 MB", values, seeded(logText(), values, 1_000_000));
measure("log text, a secret in each KB", values, seeded(logText(), values, 1_000));
measure("near misses: secrets without their end", values, nearMisses(values));
measure("near misses: secrets without their beginning", values, nearMissesBackwards(values));
const run = "a".repeat(4096);
measure("aaa..., secrets a{4096}b and ba{4096}", [`${run}b`, `b${run}`], filled(() => run));
const random = numbers(5);
measure("base64 text", values, filled(() => `${word(random, 76)}\n`));

function seeded(text: Uint8Array, values: readonly string[], every: number): Uint8Array {
  const random = numbers(4);
  const encoder = new TextEncoder();
  for (let at = 0; at + every < text.length; at += every) {
    text.set(encoder.encode(values[Math.floor(random() * 18)]), at);
  }
  return text;
}
