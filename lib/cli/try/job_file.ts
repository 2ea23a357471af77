/** A job file as people submit it, and the archive of its attachments as the server hands it on. */
import { dirname, resolve } from "node:path";
import { packTar, type TarEntry } from "modern-tar";
import { parse as parseYaml } from "yaml";

type JsonObject = Record<string, unknown>;

const PHASES_WITH_ATTACHMENTS = ["provision", "firmware_update", "test"] as const;

/** A job, ready to be submitted. */
export interface JobFile {
  job: JsonObject;
  /** A tar.gz; undefined when the job has no attachments. */
  attachments?: Uint8Array;
}

/** What `readJobFile()` comes to; `message` is one line. */
export type JobFileResult = { ok: true; value: JobFile } | { ok: false; message: string };

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Reads a job file, YAML or JSON; attachments are looked for beside it. */
export async function readJobFile(file: string): Promise<JobFileResult> {
  let job: unknown;
  try {
    job = parseYaml(await Deno.readTextFile(file), { version: "1.1" });
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
    return { ok: false, message: `Cannot read the job file ${file}: ${reason}` };
  }
  if (!isObject(job)) {
    return { ok: false, message: `Cannot use the job file ${file}: it must be a mapping of keys` };
  }
  const entries: TarEntry[] = [];
  for (const phase of PHASES_WITH_ATTACHMENTS) {
    const data = job[`${phase}_data`];
    const attachments = isObject(data) ? data.attachments ?? [] : [];
    if (!Array.isArray(attachments)) {
      return { ok: false, message: `${file}: ${phase}_data.attachments must be a list` };
    }
    for (const attachment of attachments) {
      const entry = await entryOf(attachment, phase, dirname(resolve(file)));
      if (typeof entry === "string") return { ok: false, message: `${file}: ${entry}` };
      entries.push(entry);
    }
  }
  if (entries.length === 0) return { ok: true, value: { job } };
  const archive = new Blob([new Uint8Array(await packTar(entries))]).stream()
    .pipeThrough(new CompressionStream("gzip"));
  return {
    ok: true,
    value: { job, attachments: new Uint8Array(await new Response(archive).arrayBuffer()) },
  };
}

/** One attachment as a member of the archive, or what is wrong with it. */
async function entryOf(
  attachment: unknown,
  phase: string,
  folder: string,
): Promise<TarEntry | string> {
  if (!isObject(attachment) || typeof attachment.local !== "string") {
    return `an attachment of ${phase} needs a key 'local'`;
  }
  const { local } = attachment;
  const name = typeof attachment.agent === "string" ? attachment.agent : local;
  try {
    const path = resolve(folder, local);
    const [body, info] = [await Deno.readFile(path), await Deno.stat(path)];
    const mode = (info.mode ?? 0o644) & 0o755;
    return { header: { name: `${phase}/${name}`, size: body.length, mode }, body };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return `cannot read the attachment ${local}: ${reason}`;
  }
}
