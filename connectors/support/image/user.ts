/** Creating a user in a mounted image: plans, and their execution on the control host. */
import { join } from "../../../lib/path.ts";
import type { ConnectorContext, PrepareContext } from "../../context.ts";
import { fullMessageOf, JobError, ProvisioningError } from "../errors.ts";
import { credentials, type JobData } from "../job.ts";
import { controlHost } from "../ssh/remote.ts";
import { quote } from "../ssh/ssh.ts";
import { publicKeyFile } from "../ssh/ssh_keys.ts";
import { type Change, changesFor } from "./changes.ts";
import { imageType, lookInto } from "./image_type.ts";
import type { MountedImage } from "./partitions.ts";
import type { Login } from "./seed_files.ts";

/** What cannot be typed would tear the files apart that it is written to. */
const UNPRINTABLE = /\p{Cc}/u;

/** cloud-init takes these for "a random one", and for a hash. */
const READ_BY_CLOUD_INIT = /^(?:R|RANDOM)$|^\$(?:1|2a|2y|5|6)(?:\$.+){2}/;

/**
 * Who is to be able to log in.
 *
 * @throws JobError when the job's user or password cannot be written to an image.
 */
export async function loginFor(ctx: PrepareContext, job: JobData): Promise<Login> {
  const { user, password } = credentials(job);
  if (UNPRINTABLE.test(password)) {
    throw new JobError("The job's 'test_password' has control characters, which cannot be typed");
  }
  if (READ_BY_CLOUD_INIT.test(password)) {
    throw new JobError(
      "The job's 'test_password' is a word or a hash of which cloud-init would make another password",
    );
  }
  return { user, password, keys: await publicKeys(ctx) };
}

async function publicKeys(ctx: PrepareContext): Promise<string[]> {
  try {
    const text = await Deno.readTextFile(await publicKeyFile(ctx));
    return text.split("\n").map((line) => line.trim()).filter((line) => line !== "");
  } catch (error) {
    ctx.log.warning(`The image gets no ssh key, only a password: ${fullMessageOf(error)}`);
    return [];
  }
}

/** Creates the user in the image; in one of an unknown type that has no place for it, none. */
export async function createUser(
  ctx: ConnectorContext,
  image: MountedImage,
  login: Login,
): Promise<void> {
  const facts = await lookInto(ctx, image.root);
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
  for (const change of changes) {
    if (change.kind === "write") await writeTo(ctx, image.root, change);
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
  ctx: ConnectorContext,
  root: string,
  change: Change & { readonly kind: "run" },
): Promise<void> {
  await controlHost(ctx).must({
    step: `${change.step} in the image`,
    program: change.program,
    command: `${inImage(root, change)} && if test -d "$d"; then ${change.command}; fi`,
  });
}

/** What is written may be a password: it goes by standard input, into a file that nobody else reads. */
async function writeTo(
  ctx: ConnectorContext,
  root: string,
  change: Change & { readonly kind: "write" },
): Promise<void> {
  const { partition, folder, name, text, mode } = change;
  const file = `"$d"/${quote(name)}`;
  await controlHost(ctx).must({
    step: `write ${join(partition, folder, name)} in the image`,
    program: "tee",
    // The old file may be a link to somewhere else.
    command: `umask 077; ${inImage(root, change)} && sudo mkdir -p "$d" && sudo rm -f ${file} && ` +
      `sudo tee ${file} >/dev/null && sudo chmod ${mode.toString(8)} ${file}`,
    input: text,
  });
}
