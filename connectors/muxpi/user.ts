/** Creating a user in a mounted image: plans, and their execution on the control host. */
import { join } from "node:path";
import type { PrepareContext } from "../context.ts";
import { need } from "../support/config.ts";
import { JobError, messageOf, ProvisioningError } from "../support/errors.ts";
import { credentials, type Job } from "../support/job.ts";
import { quote } from "../support/ssh/ssh.ts";
import { publicKeyFile } from "../support/ssh/ssh_keys.ts";
import { type Change, changesFor } from "./changes.ts";
import type { MuxpiContext } from "./config.ts";
import { controlHost, mustControl } from "./control.ts";
import { type ImageFacts, imageType } from "./image_type.ts";
import type { MountedImage } from "./partitions.ts";
import type { Login } from "./seed_files.ts";

const SECRET_MODE = 0o600;

/** What cannot be typed would tear the files apart that it is written to. */
const UNPRINTABLE = /\p{Cc}/u;

/**
 * Who is to be able to log in.
 *
 * @throws JobError when the job's user or password cannot be written to an image.
 */
export async function loginFor(ctx: PrepareContext, job: Job): Promise<Login> {
  const { user, password } = credentials(job);
  if (UNPRINTABLE.test(password)) {
    throw new JobError("The job's 'test_password' has control characters, which nobody can type");
  }
  return { user, password, keys: await publicKeys(ctx) };
}

async function publicKeys(ctx: PrepareContext): Promise<string[]> {
  try {
    const text = await Deno.readTextFile(await publicKeyFile(ctx));
    return text.split("\n").map((line) => line.trim()).filter((line) => line !== "");
  } catch (error) {
    ctx.log.warning(`The image gets no ssh key, only a password: ${messageOf(error)}`);
    return [];
  }
}

/** Creates the user in the image; in one of an unknown type that has no place for it, none. */
export async function createUser(
  ctx: MuxpiContext,
  image: MountedImage,
  { facts, login }: { readonly facts: ImageFacts; readonly login: Login },
): Promise<void> {
  const type = imageType(facts);
  const changes = changesFor(type, { version: facts.version, login });
  // Without this the control host's own disk would be written to.
  const missing = changes.find(({ partition }) => !image.labels.has(partition));
  if (missing !== undefined && type === "unknown") {
    ctx.log.warning(
      `The image gets no user: it is of no known type, with the partitions ` +
        `${[...image.labels].join(", ")}; whether the device comes up is seen at its boot`,
    );
    return;
  }
  if (missing !== undefined) {
    throw new ProvisioningError(
      `No user can be created in the image, which is of the type ${type}: it has no partition ` +
        `'${missing.partition}' that could be mounted (there are: ${
          [...image.labels].join(", ")
        }); ` +
        `with 'create_user: false' it is left as it is`,
    );
  }
  ctx.log.info(`The image is of the type ${type}: creating user ${login.user}`);
  await using inbox = await Inbox.open(ctx);
  for (const change of changes) {
    if (change.kind === "write") await inbox.write(image.root, change);
    else await runIn(ctx, image.root, change);
  }
}

/**
 * Sets `$d` to a folder of the image, and fails where that leads out of it: the image is the job's,
 * the control host is not.
 */
function inImage(root: string, { partition, folder }: Change): string {
  const top = quote(`${root}/${partition}`);
  const wanted = quote(join(root, partition, folder));
  return `r=$(realpath -m -- ${top}) && d=$(sudo realpath -m -- ${wanted}) && ` +
    `case "$r" in /*) ;; *) echo "$r is no path" >&2; false;; esac && ` +
    `case "$d/" in "$r"/*) ;; *) echo "$d is not in the image" >&2; false;; esac`;
}

async function runIn(
  ctx: MuxpiContext,
  root: string,
  change: Change & { readonly kind: "run" },
): Promise<void> {
  await mustControl(ctx, {
    step: `${change.step} in the image`,
    program: change.program,
    command: `${inImage(root, change)} && if test -d "$d"; then ${change.command}; fi`,
  });
}

/** The folder on the control host that files arrive in, before they are put into the image. */
class Inbox implements AsyncDisposable {
  readonly #folder: string;

  private constructor(readonly ctx: MuxpiContext, readonly local: string, name: string) {
    this.#folder = `/tmp/${name}`;
  }

  static async open(ctx: MuxpiContext): Promise<Inbox> {
    const local = await Deno.makeTempDir({ dir: ctx.cwd, prefix: ".muxpi-files-" });
    const inbox = new Inbox(ctx, local, need(ctx.config, "agent_name"));
    try {
      const folder = quote(inbox.#folder);
      // Passwords go through it, so it is new, and nobody else's.
      await mustControl(ctx, {
        step: "make a folder for files on the control host",
        program: "mkdir",
        command: `rm -rf ${folder} && mkdir -m 700 ${folder}`,
      });
      return inbox;
    } catch (error) {
      await inbox[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.local, { recursive: true });
  }

  async write(root: string, change: Change & { readonly kind: "write" }): Promise<void> {
    const { ctx } = this;
    const { partition, folder, name, text, mode } = change;
    const step = `write ${join(partition, folder, name)} in the image`;
    const local = join(this.local, name);
    const remote = `${this.#folder}/${name}`;
    await Deno.writeTextFile(local, text, { mode: SECRET_MODE });
    await controlHost(ctx).copy({ step, local, remote });
    // The old file may be a link to somewhere else.
    await mustControl(ctx, {
      step,
      program: "cp",
      command: `${inImage(root, change)} && sudo mkdir -p "$d" && chmod ${mode.toString(8)} ` +
        `${quote(remote)} && sudo cp --remove-destination ${quote(remote)} "$d/" && ` +
        `rm -f ${quote(remote)}`,
    });
  }
}
