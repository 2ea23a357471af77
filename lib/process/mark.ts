/**
 * A mark that everything carries which a command starts: the limit on file locks, a number that the kernel
 * hands on from process to process and has not used since Linux 2.4. Other than an environment everybody
 * can read it, also when a process forbids to look into its memory or its first thread has ended, and it
 * stays with what goes into another session, becomes another program or another user. A process can only
 * lower it: what does so is not found by it any more.
 */
import { ask } from "./proc.ts";

/** The number for a text: the same text has the same one, two texts have hardly ever. */
export function markOf(text: string): number {
  // FNV-1a, once forwards and once backwards: 26 bits of each.
  const hash = (units: Iterable<string>) => {
    let value = 0x811c9dc5;
    for (const unit of units) value = Math.imul(value ^ unit.charCodeAt(0), 0x01000193) >>> 0;
    return value >>> 6;
  };
  return (hash(text) + 1) * 2 ** 26 + hash([...text].reverse());
}

/**
 * Shell text that sets the mark `$1`, unless that is empty. The option is called w by dash and x by bash.
 * Where a mark has been set before, to a smaller number, that one stays.
 */
export const SET_MARK = '[ -z "$1" ] || { ulimit -w "$1" || ulimit -x "$1"; } 2>/dev/null';

/** What a line of /proc/<pid>/limits looks like when the process carries the mark. */
export function markPattern(mark: number): string {
  return `^Max file locks +[0-9]+ +${mark} `;
}

/**
 * Kills what carries a mark and is too short-lived to be found by looking at all processes: a program
 * that starts itself again and ends, over and over. The newest processes are looked at, of which the
 * kernel says the number, and each is killed as soon as it is seen. It goes on while there are any.
 *
 * @param passes looks without finding anything before it ends; each takes about 0.3 ms.
 * @returns how many were killed.
 */
export async function killNewest(mark: number, passes: number): Promise<number> {
  const { text } = await ask([...lookAtNewest(mark, passes), "-9"]);
  return Number(text);
}

/** The command that says by exit status 1 that one of the newest processes carries a mark, without ending any. */
export function seeNewest(mark: number, passes: number): [string, ...string[]] {
  return [...lookAtNewest(mark, passes), "-0"];
}

function lookAtNewest(mark: number, passes: number): [string, ...string[]] {
  return ["awk", "-v", `pattern=${markPattern(mark)}`, "-v", `passes=${passes}`, NEWEST];
}

/** Sends the signal that is its argument. Of so many looks no more are made, whatever is found. */
const NEWEST = `BEGIN {
  quiet = found = 0
  for (look = 0; quiet < passes && look < 20 * passes; look++) {
    getline line <"/proc/loadavg"; close("/proc/loadavg")
    split(line, load, " ")
    quiet++
    for (pid = load[5] + 1; pid > load[5] - 40 && pid > 1; pid--) {
      limits = "/proc/" pid "/limits"
      while ((getline line <limits) > 0) if (line ~ pattern) {
        stat = "/proc/" pid "/stat"
        if ((getline line <stat) > 0 && line !~ /\) [ZX] /) {
          found++
          if (ARGV[1] == "-0") exit 1
          print "kill " ARGV[1] " " pid |"/bin/sh 2>/dev/null"; fflush("/bin/sh 2>/dev/null")
          quiet = 0
        }
        close(stat)
        break
      }
      close(limits)
    }
  }
  close("/bin/sh 2>/dev/null")
  print found
}`;
