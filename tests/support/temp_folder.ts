import { join } from "node:path";

/** A temporary folder that goes when the test ends. */
export class TempFolder implements AsyncDisposable {
  readonly path: string = Deno.makeTempDirSync({ prefix: "test-" });

  /** A path in it. */
  at(...names: string[]): string {
    return join(this.path, ...names);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}

/** A user that owns nothing and is not us. Only root can give files to it. */
export const NOBODY = 65534;

/** Whether tests can give files to other users. */
export const IS_ROOT = Deno.uid() === 0;

/** Makes a FIFO. */
export async function makeFifo(path: string): Promise<void> {
  const { success } = await new Deno.Command("mkfifo", { args: [path] }).output();
  if (!success) throw new Error(`Cannot make a FIFO at ${path}`);
}
