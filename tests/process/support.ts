import type { GroupStart, ProcessGroup } from "../../lib/process/group.ts";

/** How many cases a property is tried with. */
export function fuzzCases(): number {
  return Number(Deno.env.get("FUZZ_CASES") ?? 10_000);
}

/** `bytes` cut into pieces at these places, in copies, so that no piece can see the others. */
export function splitAt(bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] {
  const places = [0, ...cuts.map((cut) => Math.min(cut, bytes.length)), bytes.length];
  places.sort((a, b) => a - b);
  return places.slice(1).map((end, i) => bytes.slice(places[i], end));
}

/** Pieces as one. */
export function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

/** The environment of commands in tests. */
export const ENV = { PATH: "/usr/bin:/bin" };

/** Waits for something to become true that will, in a moment; gives up after 20 s. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
): Promise<void> {
  for (let i = 0; i < 2000; i++) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`Waited in vain until ${what}`);
}

/** Output of a command, which can be waited for. */
export class Output {
  #bytes: Uint8Array[] = [];
  readonly onOutput = (bytes: Uint8Array) => {
    this.#bytes.push(bytes);
  };

  get text(): string {
    return new TextDecoder().decode(joined(this.#bytes));
  }

  get length(): number {
    return this.#bytes.reduce((sum, bytes) => sum + bytes.length, 0);
  }

  has(text: string): Promise<void> {
    return until(`the output has ${text}: it is ${this.text}`, () => this.text.includes(text));
  }

  /** What the command printed behind `name=`. */
  async number(name: string): Promise<number> {
    let found: RegExpExecArray | null = null;
    await until(`${name}= is printed`, () => {
      found = new RegExp(`${name}=(\\d+)\n`).exec(this.text);
      return found !== null;
    });
    return Number(found![1]);
  }
}

/** Kills what a test may have left, by pid. */
export function kill(...pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      Deno.kill(pid, "SIGKILL");
    } catch {
      // It has ended already.
    }
  }
}

/** The group that was started; a test that goes on without one makes no sense. */
export function groupOf(start: GroupStart): ProcessGroup {
  if (!start.started) throw new Error(start.message);
  return start.group;
}
