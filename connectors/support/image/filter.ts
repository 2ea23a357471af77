/** An image on its way through a program of this host. */
import type { ConnectorContext } from "../../context.ts";
import { ProvisioningError } from "../errors.ts";
import { type CommandResult, succeeded } from "../process/runner.ts";
import type { Image } from "./source.ts";
import { localUnpacker } from "./wire.ts";

/** A program, and what goes through it. */
export interface Filter {
  readonly argv: readonly string[];
  readonly input: ReadableStream<Uint8Array>;
  /** For the whole. */
  readonly timeoutMs: number;
  /** Throws when that is not the end of a program that did its work. */
  readonly check: (result: CommandResult) => void;
}

/** What comes out of a program, which is gone when this is disposed of. */
export interface Filtered extends AsyncDisposable {
  readonly stream: ReadableStream<Uint8Array>;
}

/**
 * Sends a stream through a program. What goes wrong, with the input or with the program, is thrown by
 * the stream that comes out, before its last piece: so that nothing that is broken ends like a whole.
 */
export function filtered(ctx: ConnectorContext, filter: Filter): Filtered {
  const source = filter.input.getReader();
  let isStopped = false;
  let wanted = Promise.withResolvers<void>();
  let held: Uint8Array | undefined;
  const stop = () => {
    isStopped = true;
    wanted.resolve();
    return source.cancel().catch(() => {});
  };
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      const run = async () => {
        const result = await ctx.runner.run(filter.argv, {
          timeoutMs: filter.timeoutMs,
          input: new ReadableStream<Uint8Array>({
            async pull(input) {
              const { done, value } = await source.read();
              if (done) input.close();
              else input.enqueue(value);
            },
            cancel: (reason) => source.cancel(reason),
          }, { highWaterMark: 0 }),
          async onStdout(bytes) {
            await wanted.promise;
            if (isStopped) throw new Error("The rest is not needed");
            const ready = held;
            held = bytes;
            if (ready === undefined) return;
            wanted = Promise.withResolvers();
            controller.enqueue(ready);
          },
        });
        if (isStopped) throw new Error("The rest is not needed");
        filter.check(result);
        if (held !== undefined) controller.enqueue(held);
        controller.close();
      };
      run().catch((error) => controller.error(error)).finally(end);
    },
    pull: () => wanted.resolve(),
    cancel: stop,
  }, { highWaterMark: 0 });
  return {
    stream,
    async [Symbol.asyncDispose]() {
      await stop();
      await ended;
    },
  };
}

/** The same for a stream that goes through nothing. */
export function unfiltered(stream: ReadableStream<Uint8Array>): Filtered {
  return {
    stream,
    // Its reader holds it.
    [Symbol.asyncDispose]: () => stream.locked ? Promise.resolve() : stream.cancel(),
  };
}

/** Unpacks an image as it arrives. */
export function unpackHere(
  ctx: ConnectorContext,
  image: Pick<Image, "unpacker" | "timeoutMs">,
  input: ReadableStream<Uint8Array>,
): Filtered {
  if (image.unpacker === "cat") return unfiltered(input);
  return filtered(ctx, {
    argv: localUnpacker(image.unpacker),
    input,
    timeoutMs: image.timeoutMs,
    check(result) {
      if (succeeded(result)) return;
      const said = "stderr" in result ? result.stderr.trim() : result.message;
      throw new ProvisioningError(
        `Cannot unpack the image: '${image.unpacker}' on the agent's host says: ` +
          (said || result.ended),
      );
    },
  });
}
