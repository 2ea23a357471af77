/** A job's files as people have them: the one that is submitted, its attachments, and the artifacts that come back. */
import { packTar, type TarEntry, unpackTar } from "modern-tar";
import { basename, dirname, join, normalize, relative, resolve } from "node:path";
import * as z from "zod";
import { didYouMean, formatPath, type Mistake, type Path, quoted } from "../../config/mistake.ts";
import { readFailure } from "../../config/source_text.ts";
import { type PlaceOf, readYamlFile } from "../../config/yaml_file.ts";
import { JobSubmission } from "../../sandbox/job_schema.ts";

type JsonObject = Record<string, unknown>;

const PHASES_WITH_ATTACHMENTS = ["provision", "firmware_update", "test"] as const;

/** A job, ready to be submitted. */
export interface JobFile {
  job: JsonObject;
  /** A tar.gz; undefined when the job has no attachments. */
  attachments?: Uint8Array;
  /** Keys that look misspelt. */
  warnings: Mistake[];
}

/** What `readJobFile()` comes to. */
type JobFileResult = { ok: true; value: JobFile } | { ok: false; mistakes: Mistake[] };

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Reads a job file, YAML or JSON; attachments are looked for next to it. */
export async function readJobFile(file: string): Promise<JobFileResult> {
  const read = await readYamlFile(file, z.looseObject({}));
  if (!read.ok) return { ok: false, mistakes: read.mistakes };
  const job: JsonObject = read.value;
  const warnings = slipsIn(job, { file, placeOf: read.placeOf });
  const wrong = (path: Path, message: string): JobFileResult => ({
    ok: false,
    mistakes: [{ file, ...read.placeOf(path), path: formatPath(path), message }],
  });
  const entries: TarEntry[] = [];
  for (const phase of PHASES_WITH_ATTACHMENTS) {
    const data = job[`${phase}_data`];
    const attachments = isObject(data) ? data.attachments ?? [] : [];
    const path = [`${phase}_data`, "attachments"];
    if (!Array.isArray(attachments)) return wrong(path, "must be a list");
    for (const [index, attachment] of attachments.entries()) {
      // What is on the server already has no file here.
      if (isObject(attachment) && attachment.local === undefined && attachment.agent) continue;
      const one = await packed(attachment, { phase, folder: dirname(resolve(file)) });
      if (typeof one === "string") return wrong([...path, index], one);
      entries.push(...one.entries);
      const { local: _, ...rest } = attachment;
      attachments[index] = { ...rest, agent: one.agent };
    }
  }
  if (entries.length === 0) return { ok: true, value: { job, warnings } };
  const archive = new Blob([new Uint8Array(await packTar(entries))]).stream()
    .pipeThrough(new CompressionStream("gzip"));
  return {
    ok: true,
    value: {
      job,
      warnings,
      attachments: new Uint8Array(await new Response(archive).arrayBuffer()),
    },
  };
}

/**
 * Keys that servers do not know, each with the one that was probably meant. No mistakes: servers learn
 * new ones, and connectors read what they like.
 */
function slipsIn(
  job: JsonObject,
  { file, placeOf }: { file: string; placeOf: PlaceOf },
): Mistake[] {
  const warnings: Mistake[] = [];
  const compare = (path: Path, value: unknown, schema: unknown) => {
    const known = keysOf(schema);
    if (!isObject(value) || known.length === 0) return;
    for (const key of Object.keys(value)) {
      if (known.includes(key)) continue;
      const meant = didYouMean(key, known);
      const own = [...path, key];
      const hint = meant !== undefined && !Object.hasOwn(value, meant)
        ? `did you mean ${quoted(meant)}?`
        : "does the server know it?";
      warnings.push({
        file,
        ...placeOf(own, "key"),
        path: formatPath(own),
        message: `is not a known key of a job, ${hint}`,
      });
    }
  };
  compare([], job, JobSubmission);
  for (const section of ["test_data", "reserve_data"] as const) {
    compare([section], job[section], JobSubmission.shape[section].unwrap());
  }
  return warnings;
}

/** Of what the server says itself about a job; no person writes these. */
const SERVER_KEYS = ["attachments_status", "created_at", "started_at", "client_id"];

function keysOf(schema: unknown): string[] {
  return schema instanceof z.ZodObject ? [...Object.keys(schema.shape), ...SERVER_KEYS] : [];
}

/** One attachment as members of the archive, or what is wrong with it. */
interface Packed {
  entries: TarEntry[];
  /** Its path below the phase's folder, on the agent. */
  agent: string;
}

/** A file, or a folder with all that is in it; named on the agent as the established client names it. */
async function packed(
  attachment: unknown,
  { phase, folder }: { phase: string; folder: string },
): Promise<Packed | string> {
  if (!isObject(attachment) || typeof attachment.local !== "string") {
    return "must be a mapping with the key 'local', the file to attach";
  }
  const path = resolve(folder, attachment.local);
  const below = relative(folder, path);
  const agent = typeof attachment.agent === "string"
    ? attachment.agent.replace(/^\/+/, "")
    : below.startsWith("..")
    ? basename(path)
    : below;
  try {
    return { entries: await membersOf(path, `${phase}/${agent}`), agent };
  } catch (error) {
    return `cannot read the attachment ${attachment.local}: ${readFailure(error)}`;
  }
}

async function membersOf(path: string, name: string): Promise<TarEntry[]> {
  const info = await Deno.stat(path);
  const mode = (info.mode ?? 0o644) & 0o755;
  if (!info.isDirectory) {
    const body = await Deno.readFile(path);
    return [{ header: { name, size: body.length, mode }, body }];
  }
  const names = (await Array.fromAsync(Deno.readDir(path))).map((entry) => entry.name).sort();
  const inside = await Promise.all(
    names.map((one) => membersOf(join(path, one), `${name}/${one}`)),
  );
  return [{ header: { name: `${name}/`, size: 0, mode, type: "directory" } }, ...inside.flat()];
}

/**
 * Writes the artifacts of a job into `folder`, which is made. Nothing is written outside of it.
 *
 * @returns how many files there were.
 */
export async function writeArtifacts(archive: Uint8Array, folder: string): Promise<number> {
  const bytes = new Blob([new Uint8Array(archive)]).stream();
  const entries = await unpackTar(bytes.pipeThrough(new DecompressionStream("gzip")));
  await Deno.mkdir(folder, { recursive: true });
  let files = 0;
  // Links come last, so that nothing can be written through one.
  const links = [];
  for (const entry of entries) {
    const name = normalize(entry.header.name).replace(/^artifacts\/?/, "");
    if (name.startsWith("..") || name.startsWith("/")) continue;
    const path = join(folder, name);
    if (entry.header.type === "directory") {
      await Deno.mkdir(path, { recursive: true });
    } else if (entry.header.type === "symlink") {
      links.push({ path, target: entry.header.linkname ?? "" });
    } else if (entry.data !== undefined) {
      await Deno.mkdir(dirname(path), { recursive: true });
      await Deno.writeFile(path, entry.data, {
        createNew: true,
        mode: (entry.header.mode ?? 0o644) & 0o755,
      });
      files++;
    }
  }
  for (const { path, target } of links) {
    await Deno.symlink(target, path);
    files++;
  }
  return files;
}
