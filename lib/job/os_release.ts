/** What runs on the device, for a label of the metrics. */
import type { Clock } from "../clock.ts";
import { run } from "../process/run.ts";

/** A device that does not answer by then has no release. */
const PATIENCE_MS = 30_000;
/** An os-release file is well below that. */
const LARGEST_ANSWER_BYTES = 64 * 1024;

/** How the device is reached. */
export interface ReadReleaseOptions {
  username: string;
  /** What ssh runs with. */
  env: Record<string, string>;
  clock: Clock;
  signal: AbortSignal;
}

/** Reads `/etc/os-release` of the device over ssh; `unknown` when that does not work. */
export async function readRelease(deviceIp: string, options: ReadReleaseOptions): Promise<string> {
  const { username, env, clock, signal } = options;
  // Either would otherwise be able to begin with a dash and be an option of ssh.
  if (!/^[A-Za-z0-9][A-Za-z0-9.:%_-]*$/.test(deviceIp) || !/^[A-Za-z_][\w.@-]*$/.test(username)) {
    return "unknown";
  }
  let text = "";
  const decoder = new TextDecoder();
  const result = await run([
    "ssh",
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "UserKnownHostsFile=/dev/null",
    "-o",
    "BatchMode=yes",
    "-o",
    "ConnectTimeout=10",
    "-o",
    "LogLevel=ERROR",
    `${username}@${deviceIp}`,
    "cat",
    "/etc/os-release",
  ], {
    cwd: "/",
    env,
    limits: { totalMs: PATIENCE_MS },
    graceMs: 1000,
    clock,
    signal,
    onOutput: (bytes: Uint8Array) => {
      if (text.length < LARGEST_ANSWER_BYTES) text += decoder.decode(bytes, { stream: true });
    },
  });
  const isRead = result.ended === "exited" && result.exit.kind === "code" && result.exit.code === 0;
  return isRead ? releaseOf(text) : "unknown";
}

/**
 * The release that an os-release file names: `Core 22` for Ubuntu Core, else the point release
 * (`22.04.5`) or `VERSION_ID`, else `unknown`.
 */
export function releaseOf(osRelease: string): string {
  const values = new Map(
    osRelease.split("\n").flatMap((line) => {
      const found = /^([A-Z_]+)=(["']?)(.*)\2\s*$/.exec(line);
      return found === null ? [] : [[found[1] ?? "", found[3] ?? ""] as const];
    }),
  );
  const versionId = values.get("VERSION_ID") ?? "";
  if (values.get("ID") === "ubuntu-core") return versionId === "" ? "unknown" : `Core ${versionId}`;
  const version = /^\d+\.\d+(\.\d+)*/.exec(values.get("VERSION") ?? "")?.[0];
  return version ?? (versionId === "" ? "unknown" : versionId);
}
