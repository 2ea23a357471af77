/** How a command ended, and what it has used, as its control group tells then (cgroups(7)). */

/** How a command ended. */
export type Exit =
  /** It ended by itself: `code` 0-255. */
  | { kind: "code"; code: number }
  /** A signal ended it. */
  | { kind: "signal"; signal: number }
  /** It lives on though it was killed: it belongs to another user, or is stuck inside the kernel. */
  | { kind: "stuck" }
  /** It is gone, and what waited for it too: nobody knows how it ended. */
  | { kind: "lost" };

/** What the outcome of a job says of a command of which there is no exit status. */
const UNKNOWN_STATUS = 100;

/** The exit status that an outcome carries: the code, or `256 - signo` for a death by signal. */
export function statusOf(exit: Exit): number {
  switch (exit.kind) {
    case "code":
      return exit.code;
    case "signal":
      return 256 - exit.signal;
    case "stuck":
    case "lost":
      return UNKNOWN_STATUS;
  }
}

/** What a command has used, with all that it has started. Unknown where its controller is off. */
export interface GroupUsage {
  cpuMs?: number | undefined;
  /** Bytes, at most at one time. */
  memoryPeak?: number | undefined;
  /** Bytes. */
  read?: number | undefined;
  written?: number | undefined;
  /** How many processes the kernel has killed because memory ran out. */
  killed: number;
}

/**
 * A function of awk that prints what the group in a folder says, in fewer than 200 bytes. A number beyond
 * 2^31 is printed as text, or by `%.0f`: awk's own way rounds it.
 */
export const SAY_USAGE = `function say_usage(group,   line, part, is_known, read_bytes, written) {
  while ((getline line <(group "/cpu.stat")) > 0)
    if (split(line, part, " ") == 2 && part[1] == "usage_usec") print "cpu_us " part[2]
  if ((getline line <(group "/memory.peak")) > 0) print "memory " line
  while ((getline line <(group "/memory.events")) > 0)
    if (split(line, part, " ") == 2 && part[1] == "oom_kill") print "killed " part[2]
  while ((is_known = getline line <(group "/io.stat")) > 0) {
    if (match(line, /rbytes=[0-9]+/)) read_bytes += substr(line, RSTART + 7, RLENGTH - 7)
    if (match(line, /wbytes=[0-9]+/)) written += substr(line, RSTART + 7, RLENGTH - 7)
  }
  if (is_known == 0) printf "read %.0f\\nwritten %.0f\\n", read_bytes, written
}`;

/**
 * What a command has used in all, when its group has begun to count anew in between: memory and I/O are
 * counted by controllers, which are taken from a group while one supervisor hands over to the next. CPU
 * time is counted without one.
 */
export function usageInAll(before: GroupUsage | undefined, since: GroupUsage): GroupUsage {
  if (before === undefined) return since;
  const of = (key: "memoryPeak" | "read" | "written", sum: (a: number, b: number) => number) => {
    const [a, b] = [before[key], since[key]];
    return a === undefined && b === undefined ? {} : { [key]: sum(a ?? 0, b ?? 0) };
  };
  const add = (a: number, b: number) => a + b;
  return {
    ...since,
    ...of("memoryPeak", Math.max),
    ...of("read", add),
    ...of("written", add),
    killed: before.killed + since.killed,
  };
}

/** Reads what `SAY_USAGE` printed, behind whatever else. */
export function parseUsage(text: string): GroupUsage {
  const number = (key: string) => {
    const [, digits] = RegExp(`^${key} (\\d+)$`, "m").exec(text) ?? [];
    return digits === undefined ? undefined : Number(digits);
  };
  const cpuMicros = number("cpu_us");
  const [memoryPeak, read, written] = [number("memory"), number("read"), number("written")];
  return {
    ...(cpuMicros !== undefined && { cpuMs: cpuMicros / 1000 }),
    ...(memoryPeak !== undefined && { memoryPeak }),
    ...(read !== undefined && { read }),
    ...(written !== undefined && { written }),
    killed: number("killed") ?? 0,
  };
}
