/** What is on its way and is no phase: how far it has come, and the artifacts as they are sent. */
import { Said } from "../once.ts";
import type { Emit } from "../observe/events.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { join } from "../path.ts";
import { type Progress, watched } from "../progress.ts";
import type { Upload } from "../server/api.ts";
import { GZIP } from "./artifacts/compress.ts";
import { packArtifacts } from "./artifacts/pack.ts";

/** What is on its way. */
interface TransferOptions {
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

/** What an upload is made with. */
interface ArtifactUploadOptions {
  /** Masks secrets: a name of a file is the job's own text. */
  redact(text: string): string;
  emit: Emit;
}

/**
 * The folder `artifacts` in `folder` as an upload. It is packed as it is sent, and again when it has to
 * be sent again. What cannot be packed is left out, and the job's log says so once. Disposed of when it
 * has been sent, or not: a server that refuses it may never have read it to its end.
 */
export function artifactUpload(
  outbox: Outbox,
  folder: string,
  { redact, emit }: ArtifactUploadOptions,
): Upload & Disposable {
  const said = new Said();
  const report = (path: string, reason: string) => {
    if (!said.isNew(path)) return;
    const phase = outbox.state.logs.output.regions.at(-1)?.phase ?? "cleanup";
    const line = `WARNING: The artifact ${
      JSON.stringify(path)
    } is not delivered whole: ${reason}\n`;
    outbox.appendLog("output", phase, new TextEncoder().encode(redact(line))).catch(() => {});
  };
  const what = "Uploading the artifacts";
  let progress: Progress | undefined;
  // Should it be gzip that fails, the next attempt does without it.
  let gzip = GZIP;
  return {
    open() {
      const archive = packArtifacts(join(folder, "artifacts"), { onSkipped: report, gzip });
      gzip = undefined;
      progress?.end();
      progress = beginTransfer(emit, { what, jobId: outbox.jobId });
      return watched(archive, progress);
    },
    [Symbol.dispose]: () => progress?.end(),
  };
}
