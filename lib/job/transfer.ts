/** Tells whoever watches the agent how far something has come that is not a phase. */
import type { Emit } from "../observe/events.ts";
import type { Progress } from "../progress.ts";

/** What is on its way. */
export interface TransferOptions {
  what: "Fetching the attachments" | "Unpacking the attachments" | "Uploading the artifacts";
  jobId: string;
  /** In bytes, where it is known. */
  total?: number | undefined;
}

/** Begins to tell of a transfer. */
export function beginTransfer(
  emit: Emit,
  { what, jobId, total }: TransferOptions,
): Progress & Disposable {
  const tell = (bytes: number, isOver: boolean) =>
    emit({ type: "transfer", job: jobId, what, bytes, total, isOver });
  let last = 0;
  let isOver = false;
  tell(0, false);
  const end = () => {
    if (!isOver) tell(last, true);
    isOver = true;
  };
  return {
    at(bytes) {
      last = bytes;
      // A stream may still be read a little when nobody waits for it any more.
      if (!isOver) tell(bytes, false);
    },
    end,
    [Symbol.dispose]: end,
  };
}
