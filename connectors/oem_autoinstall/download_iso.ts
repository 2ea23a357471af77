/** Downloading the ISO on the device, with the job's credentials where it has some. */
import { ProvisioningError } from "../support/errors.ts";
import type { PutBack } from "../support/put_back.ts";
import { type Remote, remote } from "../support/ssh/remote.ts";
import { quote } from "../support/ssh/ssh.ts";
import type { AutoinstallContext } from "./config.ts";

/** Server of OEM images that is reached by rclone. */
const OEM_SHARE = "oem-share.canonical.com";

const INSTALL_TIMEOUT_MS = 600_000;
const DOWNLOAD_TIMEOUT_MS = 3_600_000;
const CHECKSUM_TIMEOUT_MS = 600_000;

/** Credentials for the download. */
export type Token =
  /** A configuration of rclone, and what it is to copy. */
  | { readonly kind: "rclone"; readonly config: string; readonly source: string }
  | { readonly kind: "login"; readonly user: string; readonly token: string };

/**
 * The credentials for a download.
 *
 * @param text of the job's token file; undefined where it has none.
 * @returns undefined where none are needed.
 * @throws ProvisioningError when they do not fit the URL, or it needs some.
 */
export function readToken(url: URL, text: string | undefined): Token | undefined {
  if (text === undefined) {
    if (!url.href.includes(OEM_SHARE)) return undefined;
    throw new ProvisioningError(`Images of ${OEM_SHARE} need the job's 'token_file'`);
  }
  if (url.href.includes(OEM_SHARE)) {
    return { kind: "rclone", config: text, source: rcloneSource(url.href) };
  }
  const user = /^username:\s*(\S+)\s*$/m.exec(text)?.[1];
  const token = /^token:\s*(\S+)\s*$/m.exec(text)?.[1];
  if (user !== undefined && token !== undefined) return { kind: "login", user, token };
  throw new ProvisioningError(
    "The job's 'token_file' cannot be used: expected a line 'username: NAME' and a line 'token: TOKEN'",
  );
}

/** `<project>:<path>` of an address such as https://oem-share.canonical.com/share/PROJECT/a/b.iso. */
function rcloneSource(url: string): string {
  const project = url.split("/")[4];
  if (project === undefined || project === "") {
    throw new ProvisioningError(`'${url}' does not name a project of ${OEM_SHARE}`);
  }
  const mark = url.includes("partners") ? "share/" : `${project}/`;
  return `${project}:${url.slice(url.lastIndexOf(mark) + mark.length)}`;
}

/** @throws ProvisioningError when the ISO cannot be had, or is not the right one. */
export async function downloadIso(
  ctx: AutoinstallContext,
  device: Remote,
  { url, token, sha256, iso, home }: {
    readonly url: string;
    readonly token: Token | undefined;
    readonly sha256: string | undefined;
    /** Where to put it. */
    readonly iso: string;
    readonly home: string;
  },
): Promise<void> {
  ctx.log.info("Downloading the ISO on the device");
  if (token?.kind === "rclone") await copyByRclone(ctx, device, { ...token, home });
  else await downloadByWget(ctx, device, { url, login: token, iso, home });
  await device.must({
    step: "download the ISO on the device",
    program: "test",
    command: `sudo test -s ${quote(iso)}`,
  });
  if (sha256 === undefined) return;
  const said = await device.must({
    step: "verify the ISO",
    program: "sha256sum",
    command: `sudo sha256sum ${quote(iso)}`,
    timeoutMs: CHECKSUM_TIMEOUT_MS,
  });
  const found = said.trim().split(/\s+/)[0]?.toLowerCase();
  if (found === sha256) return;
  throw new ProvisioningError(
    `The ISO on the device has the checksum ${found}, expected ${sha256}: it is not the right one`,
  );
}

async function copyByRclone(
  ctx: AutoinstallContext,
  device: Remote,
  { config, source, home }: {
    readonly config: string;
    readonly source: string;
    readonly home: string;
  },
): Promise<void> {
  const file = `${home}/url_token`;
  await device.must({
    step: "install rclone on the device",
    program: "apt-get",
    command: "command -v rclone >/dev/null || " +
      "sudo DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y rclone",
    timeoutMs: INSTALL_TIMEOUT_MS,
  });
  await using _removed = removedAfterUse(ctx, device, file);
  await device.write({ step: "write the credentials on the device", path: file, text: config });
  await device.must({
    step: "download the ISO on the device",
    program: "rclone",
    command: `sudo rclone --config ${quote(file)} copy ${quote(source)} ${quote(`${home}/`)}`,
    timeoutMs: DOWNLOAD_TIMEOUT_MS,
    attempts: 1,
  });
}

/** Credentials go by a netrc file: a command line can be read by everybody on the device. */
async function downloadByWget(
  ctx: AutoinstallContext,
  device: Remote,
  { url, login, iso, home }: {
    readonly url: string;
    readonly login: { readonly user: string; readonly token: string } | undefined;
    readonly iso: string;
    readonly home: string;
  },
): Promise<void> {
  const folder = `${home}/.testflinger-netrc`;
  const wget = `wget --no-verbose --tries=3 ${
    login === undefined ? "" : "--auth-no-challenge "
  }-O ${quote(iso)} ${quote(url)}`;
  await using _removed = login && removedAfterUse(ctx, device, folder);
  if (login !== undefined) {
    await device.must({
      step: "make a folder for the credentials on the device",
      program: "mkdir",
      command: `mkdir -p -m 700 ${quote(folder)}`,
    });
    await device.write({
      step: "write the credentials on the device",
      path: `${folder}/.netrc`,
      text: `machine ${new URL(url).hostname} login ${login.user} password ${login.token}\n`,
    });
  }
  await device.must({
    step: "download the ISO on the device",
    program: "wget",
    command: login === undefined ? `sudo ${wget}` : `sudo env HOME=${quote(folder)} ${wget}`,
    timeoutMs: DOWNLOAD_TIMEOUT_MS,
    attempts: 1,
  });
}

/** Removes credentials from the device, however the download ends. Registered before they are there. */
function removedAfterUse(ctx: AutoinstallContext, { target }: Remote, path: string): PutBack {
  return ctx.putBack("the device's home folder", async (own) => {
    await remote(own, target).must({
      step: "remove the download's credentials from the device",
      program: "rm",
      command: `rm -rf ${quote(path)}`,
    });
  });
}
