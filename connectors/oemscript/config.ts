import * as z from "zod";
import { basename } from "../../lib/path.ts";
import type { ConnectorContext, PrepareContext } from "../context.ts";
import { checksumKey, type CommonConfig, directOnly, type ShapeOutput } from "../support/config.ts";
import { JobError, ProvisioningError } from "../support/errors.ts";
import { checkDownload } from "../support/http/download.ts";
import { type Credentials, credentials, type JobData } from "../support/job.ts";

/** The configuration keys of the `oemscript` connectors. */
export const oemConfigShape = {
  oem_recovery_script: z.string().min(1).optional().describe(
    "A script on the agent's host that does the recovery instead of the connector: recovery-from-iso.sh.",
  ),
  insecure_download: z.boolean().default(false).describe(
    "Devices do not check the certificate of the server that an ISO comes from.",
  ),
  oem_preset_dir: z.string().min(1).optional().describe(
    "Folder with a copy of each preset repository; unset: they are cloned from Launchpad each time.",
  ),
};

/** The keys of `provision_data`. */
export const oemProvisionShape = {
  url: z.string().optional().describe("ISO to install: http or https."),
  sha256: checksumKey("SHA-256 that the ISO must have."),
  insecure_download: z.boolean().default(false).describe(
    directOnly("The device does not check the certificate of the server that the ISO comes from."),
  ),
};

type OemConfig = CommonConfig & ShapeOutput<typeof oemConfigShape>;

/** What the steps work with. */
export type OemContext = ConnectorContext<OemConfig>;

/** What preparing them works with. */
export type OemPrepareContext = PrepareContext<OemConfig>;

/** The job's `provision_data`, validated. */
export type OemData = ShapeOutput<typeof oemProvisionShape>;

/** dell: dell-restore-system. ubr: a boot entry of "ubuntu recovery". */
export type Flavour = "dell" | "ubr";

/** The only user after a recovery. */
export const OEM_USER = "ubuntu";

/** File names that need no quotes anywhere. */
const PLAIN_NAME = /^[A-Za-z0-9][A-Za-z0-9._+-]*$/;

/** Projects whose ISOs bring Ubuntu's recovery, whichever connector they are given to. */
const UBR_PROJECTS = ["stella", "sutton"];

/** Series that the presets have a branch of their own for. */
const SERIES_BRANCHES = ["jammy", "focal"];

/** What is to be done. */
export interface IsoPlan {
  readonly url: string;
  /** Without a folder. */
  readonly name: string;
  readonly sha256: string | undefined;
  readonly insecureDownload: boolean;
  readonly flavour: Flavour;
  /** Branch of the preset that skips the questions of the first boot. */
  readonly branch: string;
  readonly login: Credentials;
}

/**
 * @throws ProvisioningError when the job names no ISO, or one that cannot be used.
 * @throws JobError when it wants to log in as a user that there will not be.
 */
export function isoPlan(
  ctx: PrepareContext,
  { job, data, flavour }: { job: JobData; data: OemData; flavour: Flavour },
): IsoPlan {
  const { url, sha256, insecure_download: insecureDownload } = data;
  if (url === undefined) {
    throw new ProvisioningError(
      "The job's provision_data has no 'url': there is no ISO to install",
    );
  }
  checkDownload(ctx, { url, sha256 });
  const address = new URL(url);
  const name = basename(address.pathname);
  if (!PLAIN_NAME.test(name)) {
    throw new ProvisioningError(
      `Cannot install '${name}': expected the name of an ISO, of letters, digits and . _ + -`,
    );
  }
  const login = credentials(job);
  if (login.user !== OEM_USER) {
    throw new JobError(
      `The job's 'test_username' is '${login.user}': after a recovery there is only '${OEM_USER}'`,
    );
  }
  const checksum = sha256 ?? /^#sha256=(.*)$/.exec(address.hash)?.[1];
  address.hash = "";
  return {
    url: address.href,
    name,
    sha256: checksum?.toLowerCase(),
    insecureDownload,
    flavour: UBR_PROJECTS.some((project) => name.includes(project)) ? "ubr" : flavour,
    branch: SERIES_BRANCHES.find((series) => name.includes(series)) ?? "master",
    login,
  };
}
