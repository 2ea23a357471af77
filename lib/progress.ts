/** How far something long has come: one idea for the code that does it and the code that shows it. */
import type { Clock } from "./clock.ts";

/** Something that takes long, measured in bytes. */
export interface Task {
  /** What it is, as a line about it begins: `Downloading image.xz`. */
  readonly what: string;
  /** All of it, in bytes, where that is known. */
  readonly total?: number | undefined;
}

/** One task on its way. */
export interface Progress {
  /** @param bytes done so far. */
  at(bytes: number): void;
  /** It is over, whichever way. */
  end(): void;
}

/** Where tasks are shown. */
export interface ProgressView {
  begin(task: Task): Progress;
}

/** In a log that is read later, this often is enough to see that it goes on. */
export const PLAIN_STEP_MS = 30_000;
const PLAIN_STEP_PERCENT = 10;

/** Before this a rate is a guess. */
const RATE_AFTER_MS = 2_000;

const SECOND_MS = 1000;
const MB = 1_000_000;

/** Lines for a log: every 10 % (where the total is known) and every 30 s. */
export function plainProgress(
  { clock, say }: { clock: Pick<Clock, "monotonic">; say: (line: string) => void },
): ProgressView {
  return {
    begin(task) {
      let saidPercent = 0;
      const since = clock.monotonic();
      let saidAt = since;
      return {
        at(bytes) {
          const percent = percentOf(task, bytes) ?? 0;
          const step = percent - percent % PLAIN_STEP_PERCENT;
          if (step <= saidPercent && clock.monotonic() - saidAt < PLAIN_STEP_MS) return;
          saidPercent = Math.max(step, saidPercent);
          saidAt = clock.monotonic();
          say(progressWords(task, bytes, saidAt - since));
        },
        end() {},
      };
    },
  };
}

/** `Downloading image.xz: 40 % of 812.3 MB, 12.1 MB/s, 40 s left`: all that can be said. */
export function progressWords(task: Task, bytes: number, elapsedMs: number): string {
  const words = `${task.what}: ${amount(task, bytes)}`;
  if (elapsedMs < RATE_AFTER_MS || bytes === 0) return words;
  const perSecond = bytes / (elapsedMs / SECOND_MS);
  const rate = `${words}, ${megabytes(perSecond)}/s`;
  if (!task.total || bytes >= task.total) return rate;
  return `${rate}, ${timeLeft((task.total - bytes) / perSecond)} left`;
}

function amount(task: Task, bytes: number): string {
  const percent = percentOf(task, bytes);
  return percent === undefined
    ? `${megabytes(bytes)} so far`
    : `${percent} % of ${megabytes(task.total ?? 0)}`;
}

function percentOf({ total }: Task, bytes: number): number | undefined {
  return total ? Math.floor(bytes / total * 100) : undefined;
}

/** `12.1 MB`. */
export function megabytes(bytes: number): string {
  return `${(bytes / MB).toFixed(1)} MB`;
}

/** `40 s`, `12 min`, `2 h 5 min`: an estimate does not know the seconds of hours. */
function timeLeft(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 100) return `${whole} s`;
  const minutes = Math.ceil(whole / 60);
  return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A stream as it is, that says how much of it has passed. */
export function watched(
  stream: ReadableStream<Uint8Array>,
  progress: Progress,
): ReadableStream<Uint8Array> {
  const reader = stream.getReader();
  let bytes = 0;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (!done) {
          bytes += value.length;
          progress.at(bytes);
          return controller.enqueue(value);
        }
      } catch (error) {
        progress.end();
        throw error;
      }
      progress.end();
      controller.close();
    },
    async cancel(reason) {
      progress.end();
      await reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
}
