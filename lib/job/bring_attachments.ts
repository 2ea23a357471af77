/** A job's attachments: fetched to the outbox, then unpacked into the working folder. */
import { join } from "node:path";
import type { Clock } from "../clock.ts";
import type { AgentConfig } from "../config/agent_config.ts";
import { messageOf } from "../message.ts";
import type { Emit } from "../observe/events.ts";
import type { Connectivity } from "../outbox/connectivity.ts";
import type { Outbox } from "../outbox/outbox.ts";
import { watched } from "../progress.ts";
import type { ServerApi } from "../server/api.ts";
import { unpackAttachments } from "./attachments/unpack.ts";
import { fetchAttachments } from "./fetch_attachments.ts";
import { makeAttachmentsFolder } from "./folder.ts";
import type { Job } from "./job.ts";
import { beginTransfer } from "./transfer.ts";

/** In the job's folder of the outbox, as long as it is fetched and unpacked. */
const ARCHIVE_NAME = "attachments.tar.gz";

/** What is needed to bring attachments. */
export interface BringOptions {
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

/** Brings the attachments of a job that has any. Returns why that failed. */
export async function bringAttachments(
  job: Job,
  options: BringOptions,
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
