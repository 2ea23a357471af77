/** A job's attachments: fetched to the outbox, then unpacked into the working folder. */
import { writeAll } from "../bytes.ts";
import type { Clock } from "../clock.ts";
import type { AgentConfig } from "../config/agent_config.ts";
import { messageOf } from "../message.ts";
import type { Emit } from "../observe/events.ts";
import type { Connectivity } from "../server/connectivity.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { join } from "../path.ts";
import { watched } from "../progress.ts";
import { type Failure, isFinal, type ServerApi } from "../server/api.ts";
import { Backoff } from "../backoff.ts";
import { unpackAttachments } from "./attachments/unpack.ts";
import { makeAttachmentsFolder } from "./folder.ts";
import type { Job } from "./job.ts";
import { beginTransfer } from "./transfer.ts";

/** In the job's folder of the outbox, as long as it is fetched and unpacked. */
const ARCHIVE_NAME = "attachments.tar.gz";

/** What is needed to prepare attachments. */
interface AttachmentsOptions {
  outbox: Outbox;
  /** The job's working folder. */
  folder: string;
  config: AgentConfig;
  server: ServerApi;
  clock: Clock;
  connectivity: Connectivity;
  emit: Emit;
  signal: AbortSignal;
}

/** Fetches and unpacks the attachments of a job that has any. Returns why that failed. */
export async function prepareAttachments(
  job: Job,
  options: AttachmentsOptions,
): Promise<string | undefined> {
  if (!job.hasAttachments) return undefined;
  const { outbox, folder, config, signal } = options;
  const path = join(outbox.folder, ARCHIVE_NAME);
  const fetched = await fetchAttachments(job.jobId, {
    ...options,
    path,
    largestBytes: config.attachments_max_download,
  });
  if (!fetched.ok) {
    await removeArchive(outbox);
    return `Cannot fetch the attachments: ${fetched.reason}`;
  }
  if (fetched.hasAny) {
    let place: string;
    try {
      place = await makeAttachmentsFolder(folder);
    } catch (error) {
      await removeArchive(outbox);
      return `Cannot make the folder for the attachments: ${messageOf(error)}`;
    }
    const file = await Deno.open(path);
    const { size: total } = await file.stat();
    const what = "Unpacking the attachments";
    using progress = beginTransfer(options.emit, { what, jobId: job.jobId, total });
    const archive = watched(file.readable, progress);
    const unpacked = await unpackAttachments(archive, place, {
      limits: {
        maxMembers: config.attachments_max_members,
        maxSize: config.attachments_max_size,
        maxRatio: config.attachments_max_ratio,
        maxName: config.attachments_max_name,
        maxDownload: config.attachments_max_download,
      },
      signal,
    });
    await removeArchive(outbox);
    if (!unpacked.ok) return `The attachments are refused: ${unpacked.reason}`;
  }
  job.dropAttachments();
  return undefined;
}

/** It is still there when an earlier process was killed between fetching and unpacking it. */
export async function removeArchive(outbox: Outbox): Promise<void> {
  await Deno.remove(join(outbox.folder, ARCHIVE_NAME)).catch(() => {});
}

/** A job cannot begin without its attachments; an outage of half an hour it sits out. */
const PATIENCE_MS = 30 * 60 * 1000;

/** What a fetch needs. */
interface FetchOptions {
  /** Where the archive goes; mode 0600. */
  path: string;
  server: ServerApi;
  connectivity: Connectivity;
  clock: Clock;
  emit: Emit;
  signal: AbortSignal;
  /** Largest archive that is accepted, in bytes. */
  largestBytes: number;
}

/** What became of it. */
type Fetched = { ok: true; hasAny: boolean } | { ok: false; reason: string };

/**
 * Fetches the archive, again from the beginning when the connection is lost on the way.
 *
 * The archive is kept in a file first, so that a connection that is cut and an archive that is cut
 * are two different things.
 */
async function fetchAttachments(jobId: string, options: FetchOptions): Promise<Fetched> {
  const { clock, connectivity, signal } = options;
  const deadline = clock.monotonic() + PATIENCE_MS;
  const backoff = new Backoff();
  try {
    while (true) {
      const tried = await tryOnce(jobId, options);
      if ("ok" in tried) return tried;
      if (isFinal(tried.again) || clock.monotonic() >= deadline) {
        return { ok: false, reason: tried.again.message };
      }
      await connectivity.pause(backoff.next(tried.again.retryAfterMs), signal);
    }
  } catch (error) {
    if (signal.aborted) return { ok: false, reason: "the job is being ended" };
    return { ok: false, reason: messageOf(error) };
  }
}

async function tryOnce(
  jobId: string,
  { path, server, signal, emit, largestBytes }: FetchOptions,
): Promise<Fetched | { again: Failure }> {
  const answer = await server.getAttachments(jobId, signal);
  if (!answer.ok) return { again: answer };
  if (answer.value === null) return { ok: true, hasAny: false };
  await Deno.remove(path).catch(() => {});
  using file = await Deno.open(path, { write: true, createNew: true, mode: 0o600 });
  const { stream, length } = answer.value;
  const reader = stream.getReader();
  const what = "Fetching the attachments";
  using progress = beginTransfer(emit, { what, jobId, total: length });
  let size = 0;
  while (true) {
    let chunk;
    try {
      chunk = await reader.read();
    } catch (error) {
      signal.throwIfAborted();
      const message = `GET /v1/job/${jobId}/attachments was cut off after ${size} bytes: ` +
        messageOf(error);
      return { again: { ok: false, kind: "unreachable", message } };
    }
    if (chunk.done) return { ok: true, hasAny: true };
    size += chunk.value.length;
    if (size > largestBytes) {
      await reader.cancel();
      const reason = `the archive is larger than attachments_max_download (${largestBytes} bytes)`;
      return { ok: false, reason };
    }
    await writeAll(file, chunk.value);
    progress.at(size);
  }
}
