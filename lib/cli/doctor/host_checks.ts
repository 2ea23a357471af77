/** What an agent needs of its host. */
import { markerPaths } from "../../agent/markers.ts";
import { sharedLockPath } from "../../agent/lock.ts";
import { FOLDER_KEYS } from "../../config/agent_config.ts";
import { lackOfSpace } from "../../agent/host_check.ts";
import { unkeptLimits } from "../../job/job_groups.ts";
import { dirname, join, resolve } from "../../path.ts";
import { controllersOfHost, inspectGroups } from "../../process/cgroup.ts";
import { ask } from "../../process/proc.ts";
import { canRead, whyNotWritable } from "../agents/agent_user.ts";
import { isLockHidden, type LockHolder, lockHolder } from "../agents/lock_holder.ts";
import { formatFinding } from "../check/finding.ts";
import { checkFiles } from "../check/check_files.ts";
import { type Check, failed, ok, skipped, warning } from "./check_result.ts";

/** A job with a log, artifacts, an upload and some connections; the usual limit is 1024. */
const FEWEST_OPEN_FILES = 1024;

/** What `check` says. */
export const configurationCheck: Check = async ({ agent: { file }, user }) => {
  if (!await canRead(file, user)) {
    return [failed(
      "configuration",
      `${file} cannot be read by ${user.name}, the agent's user`,
      `chgrp to a group of ${user.name}, and chmod 0640`,
    )];
  }
  const { findings } = await checkFiles([file], { withFolders: false });
  if (findings.length === 0) return [ok("configuration", `${file} is valid`)];
  return findings.map((finding) =>
    finding.severity === "mistake"
      ? failed("configuration", formatFinding(finding), "correct it, then restart the agent")
      : warning(
        "configuration",
        formatFinding(finding),
        "correct it, unless it is intended",
      )
  );
};

/** Whether the agent's folders can be used. */
export const foldersCheck: Check = async ({ agent: { config }, user }) => {
  const checkResults = [];
  for (const key of FOLDER_KEYS) {
    const trouble = await whyNotWritable(config[key], user);
    if (trouble === undefined) continue;
    checkResults.push(
      failed(
        "folders",
        `${key}: ${trouble.why}`,
        (trouble.isReadOnly
          ? "mount it for writing"
          : `make ${config[key]} by hand, owned by ${user.name}`) + `, or configure another ${key}`,
      ),
    );
  }
  return checkResults.length > 0 ? checkResults : [
    ok("folders", `all three can be written by ${user.name}`),
  ];
};

/** Whether there is room for a job. */
export const spaceCheck: Check = async ({ agent: { config } }) => {
  const folders = await Promise.all(
    [config.execution_basedir, config.results_basedir].map(existingPart),
  );
  const why = await lackOfSpace(folders, config.min_free_space);
  if (why === undefined) return [ok("space", "there is more free than min_free_space")];
  return [failed(
    "space",
    why.message,
    "no job is taken before there is room: remove what is not needed there, or lower min_free_space",
  )];
};

async function existingPart(folder: string): Promise<string> {
  const path = resolve(folder);
  const isThere = await Deno.stat(path).then(() => true, () => false);
  return isThere || dirname(path) === path ? path : await existingPart(dirname(path));
}

/** Who runs under this agent's name on this host. */
export const lockCheck: Check = async ({ agent, user, sharedFolder }) => {
  const { agent_id: id } = agent.config;
  const own = await lockHolder(join(agent.folder, "lock"));
  const sharedPath = sharedLockPath(sharedFolder, id);
  const shared = await lockHolder(sharedPath);
  if (await isLockHidden(join(agent.folder, "lock"))) {
    const runs = shared === undefined ? "" : `process ${shared.pid} runs as agent '${id}'; `;
    return [skipped(
      "lock",
      `${runs}you may not look into ${agent.folder}, so it cannot be told whose it is: try as root`,
    )];
  }
  if (own === undefined && shared !== undefined) {
    return [failed(
      "lock",
      `process ${shared.pid}${
        commandWords(shared)
      } runs as agent '${id}' with another results_basedir`,
      "stop it, or give one of the two another agent_id",
    )];
  }
  const distrusted = await Deno.lstat(sharedPath).then(
    ({ isFile, uid }) => !isFile || uid !== 0 && uid !== user.uid && own === undefined,
    () => false,
  );
  if (distrusted) {
    return [failed(
      "lock",
      `${sharedPath} belongs to another user, or is no regular file`,
      "remove it: an agent could not see another one that runs under the same agent_id",
    )];
  }
  if (own === undefined) return [ok("lock", "free: the agent does not run")];
  return [ok("lock", `held by the agent, process ${own.pid}`)];
};

function commandWords({ command }: LockHolder): string {
  return command === "" ? "" : ` (${command})`;
}

/** How many files the agent may have open. */
export const openFilesCheck: Check = async ({ agent }) => {
  if (await isLockHidden(join(agent.folder, "lock"))) {
    return [
      skipped("open files", "the agent's process cannot be told from this account: try as root"),
    ];
  }
  const holder = await lockHolder(join(agent.folder, "lock"));
  const limit = holder === undefined ? await limitOfShell() : await limitOf(holder.pid);
  const whose = holder === undefined ? "in this shell" : `of process ${holder.pid}`;
  if (limit === undefined) return [ok("open files", "no limit is known")];
  if (limit >= FEWEST_OPEN_FILES) return [ok("open files", `${limit} ${whose}`)];
  return [failed(
    "open files",
    `at most ${limit} ${whose}; a large job may need more`,
    `allow at least ${FEWEST_OPEN_FILES}: LimitNOFILE= in the service's unit, or 'ulimit -n' before ` +
      "starting the agent",
  )];
};

async function limitOfShell(): Promise<number | undefined> {
  const { text } = await ask(["/bin/sh", "-c", "ulimit -n"]);
  return numberIn(text);
}

async function limitOf(pid: number): Promise<number | undefined> {
  const { text } = await ask(["grep", "^Max open files", `/proc/${pid}/limits`]);
  return numberIn(text.replace("Max open files", ""));
}

function numberIn(text: string): number | undefined {
  const [first = ""] = text.trim().split(/\s+/);
  return /^\d+$/.test(first) ? Number(first) : undefined;
}

/** What happens to what a job leaves where it has no control group. */
const WITHOUT_GROUPS = "what a job leaves running is looked for by its environment and its marks";

/** Whether the agent's jobs have control groups, and who keeps their limits. */
export const groupsCheck: Check = async ({ agent: { config, folder }, user }) => {
  const check = "control groups";
  const holder = await lockHolder(join(folder, "lock"));
  const given = holder && await inspectGroups({ pid: holder.pid, uid: user.uid });
  // Before it runs, nobody knows what it will be given.
  const controllers = given === undefined
    ? await controllersOfHost()
    : given.ok
    ? given.controllers
    : undefined;
  const reason = given?.ok === false
    ? given.reason
    : "this host shows no control groups of version 2";
  const unkept = unkeptLimits(config, controllers ?? []);
  if (unkept.length > 0) {
    const why = controllers === undefined
      ? `jobs have no control groups: ${reason}`
      : `the controllers that can be used are ${controllers.join(", ") || "none"}`;
    return [warning(
      check,
      `${unkept.join(" and ")} cannot be enforced: ${why}`,
      "have the agent started by systemd from a unit with Delegate=yes, on a host with control " +
        "groups of version 2; or remove these keys",
    )];
  }
  if (controllers === undefined) return [ok(check, `jobs have none: ${reason}; ${WITHOUT_GROUPS}`)];
  if (!given?.ok) {
    return [ok(check, "this host has them; whether jobs have them is known once the agent runs")];
  }
  const counted = ["CPU time", ...controllers].join(", ");
  return [ok(check, `each job has one, below ${given.folder}, which counts ${counted}`)];
};

/** What is asked of the agent by files on this host. */
export const markersCheck: Check = async ({ agent, user, sharedFolder }) => {
  const checkResults = [];
  for (const kind of ["OFFLINE", "RESTART"] as const) {
    const { agent_id: agentId } = agent.config;
    for (const path of markerPaths(kind, { agentId, folder: sharedFolder })) {
      const info = await Deno.lstat(path).catch(() => undefined);
      if (info === undefined) continue;
      if (!info.isFile || info.uid !== 0 && info.uid !== user.uid) {
        checkResults.push(failed(
          "requests",
          `${path} is ignored: it must be a regular file of root or of the agent's user`,
          `remove it, and use 'testflinger-agent ${kind.toLowerCase()}' as one of those users`,
        ));
      } else if (kind === "OFFLINE") {
        checkResults.push(warning(
          "requests",
          `${path} keeps the agent offline`,
          `'testflinger-agent online' removes it`,
        ));
      } else {
        checkResults.push(ok("requests", "a restart is asked for"));
      }
    }
  }
  return checkResults.length > 0 ? checkResults : [ok("requests", `none in ${sharedFolder}`)];
};
