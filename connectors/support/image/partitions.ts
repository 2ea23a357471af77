/** Finding, mounting and unmounting what an image brought along. */
import * as z from "zod";
import type { ConnectorContext } from "../../context.ts";
import { need } from "../config.ts";
import { ProvisioningError } from "../errors.ts";
import { failureText, succeeded } from "../process/runner.ts";
import { controlHost, isLost } from "../ssh/remote.ts";
import { quote } from "../ssh/ssh.ts";
import type { PutBack } from "../put_back.ts";

/** udev may still be reading the labels. */
const SECOND_LOOK_MS = 10_000;

/**
 * What operators' scripts wrote may take its time on a slow card. And unmounting alone writes nothing
 * where a container or a snap on the control host has the mount in a namespace of its own.
 */
const SYNC_TIMEOUT_MS = 600_000;

/** Then there is not much left to do; and what hangs must leave time to detach it when we are stopped. */
const UNMOUNT_TIMEOUT_MS = 20_000;

/** Each partition waits for itself when the control host has gone away. */
const UNMOUNT_ATTEMPTS = 4;

/** Devices that live in /dev/mapper by the name that lsblk gives them. */
const MAPPED_TYPES = ["crypt", "dm", "lvm", "mpath"];

/** An image comes from a job, so its labels can be anything; this much is fit for a folder. */
const FOLDER_NAME = /^(?!\.{1,2}$)[^/\p{Cc}]+$/u;

interface BlockDevice {
  readonly name: string;
  readonly label?: string | null | undefined;
  readonly type?: string | null | undefined;
  readonly children?: readonly BlockDevice[] | null | undefined;
}

const blockDevice: z.ZodType<BlockDevice> = z.object({
  name: z.string().min(1),
  label: z.string().nullish(),
  type: z.string().nullish(),
  get children() {
    return z.array(blockDevice).nullish();
  },
});

const lsblkOutput = z.object({ blockdevices: z.array(blockDevice).min(1) });

/** A file system of the image. */
interface Partition {
  /** Path of the device. */
  readonly path: string;
  readonly label: string;
}

/** The image, mounted on the control host. */
export interface MountedImage {
  /** The folder with a folder for each label. */
  readonly root: string;
  /** What is mounted. */
  readonly labels: ReadonlySet<string>;
  /**
   * Unmounts all of it.
   *
   * @throws ProvisioningError when something could not be unmounted in an orderly way.
   */
  unmount(): Promise<void>;
}

/**
 * Mounts each file system of a block device of the control host that has a label, at `/mnt/<agent>/<label>`.
 *
 * @returns undefined where none has a label.
 * @throws ProvisioningError when none of them can be mounted.
 */
export async function mountImage(
  ctx: ConnectorContext,
  device: string,
): Promise<MountedImage | undefined> {
  const root = `/mnt/${need(ctx.config, "agent_name")}`;
  const undo: PutBack[] = [];
  const partitions = await labelledPartitions(ctx, device);
  if (partitions.length === 0) {
    ctx.log.warning(
      `'lsblk' finds no partition with a label on ${device}: the image is left as it is`,
    );
    return undefined;
  }
  const labels = new Set<string>();
  for (const { path, label } of partitions) {
    if (!FOLDER_NAME.test(label) || labels.has(label)) {
      ctx.log.warning(`${path} is not mounted: its label '${label}' is no name, or not the first`);
      continue;
    }
    if (await mount(ctx, { path, folder: `${root}/${label}`, undo })) labels.add(label);
  }
  if (labels.size === 0) {
    throw new ProvisioningError(
      `The image cannot be looked into: 'mount' could not mount any partition of ${device} ` +
        `on the control host (the log says why); with 'create_user: false' it is left as it is`,
    );
  }
  return {
    root,
    labels,
    async unmount() {
      const synced = await controlHost(ctx).run("sync", { timeoutMs: SYNC_TIMEOUT_MS });
      if (!succeeded(synced)) ctx.log.warning(failureText("sync", synced));
      const failures: unknown[] = [];
      for (const entry of undo.reverse()) {
        await entry.run().catch((error) => failures.push(error));
      }
      if (failures.length > 0) throw failures[0];
    },
  };
}

async function labelledPartitions(ctx: ConnectorContext, device: string): Promise<Partition[]> {
  const first = await listPartitions(ctx, device);
  if (first.length > 0) return first;
  await ctx.clock.sleep(SECOND_LOOK_MS, ctx.signal);
  return await listPartitions(ctx, device);
}

async function listPartitions(ctx: ConnectorContext, device: string): Promise<Partition[]> {
  const step = `find the partitions of ${device}`;
  const output = await controlHost(ctx).must({
    step,
    program: "lsblk",
    command: `lsblk -o NAME,LABEL,TYPE -J ${quote(device)}`,
  });
  const parsed = lsblkOutput.safeParse(jsonOf(output));
  const top = parsed.data?.blockdevices[0];
  if (top === undefined) {
    throw new ProvisioningError(
      `Cannot ${step}: 'lsblk' printed '${
        output.trim().slice(0, 200)
      }', expected JSON with a list ` +
        `of block devices`,
    );
  }
  // An image may be one file system, without a partition table.
  const below = descendants(top);
  return (below.length > 0 ? below : [{ ...top, path: device }]).flatMap((found) => {
    if (!found.label) return [];
    const mapped = MAPPED_TYPES.includes(found.type ?? "");
    const path = "path" in found ? found.path : `/dev/${mapped ? "mapper/" : ""}${found.name}`;
    return [{ path, label: found.label }];
  });
}

function descendants({ children }: BlockDevice): BlockDevice[] {
  return (children ?? []).flatMap((child) => [child, ...descendants(child)]);
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** @returns whether it is mounted. What cannot be mounted may be of no use anyway. */
async function mount(
  ctx: ConnectorContext,
  { path, folder, undo }: { path: string; folder: string; undo: PutBack[] },
): Promise<boolean> {
  const to = quote(folder);
  // Registered first: whether a mount that was broken off is there, nobody knows.
  const entry = ctx.putBack(`the mount ${folder}`, async (ctx) => {
    await unmount(ctx, folder);
  });
  undo.push(entry);
  const result = await controlHost(ctx).run(
    // Whether something is mounted is looked at throughout: otherwise the files of the image would
    // be written to the control host's own disk.
    `command -v mountpoint >/dev/null || { echo 'mountpoint: not found' >&2; exit 127; }; ` +
      // What an agent left behind that lost its power in the middle would be in the way.
      `if mountpoint -q ${to}; then sudo umount -l ${to}; fi; sudo mkdir -p ${to} && ` +
      `sudo mount -o nosuid,nodev ${quote(path)} ${to} && mountpoint -q ${to}`,
  );
  if (succeeded(result)) return true;
  ctx.log.warning(`${path} is left out: ${failureText("mount", result)}`);
  return false;
}

async function unmount(ctx: ConnectorContext, folder: string): Promise<void> {
  const to = quote(folder);
  const orderly = await controlHost(ctx).run(
    // Only these say that nothing is mounted, in old versions and new; others say nothing at all.
    `mountpoint -q ${to}; case $? in 1|32) ;; *) sudo umount ${to} && ! mountpoint -q ${to};; esac`,
    { timeoutMs: UNMOUNT_TIMEOUT_MS, attempts: UNMOUNT_ATTEMPTS },
  );
  if (succeeded(orderly)) return;
  if (isLost(orderly)) {
    throw new ProvisioningError(
      `Cannot unmount ${folder}: the control host does not answer: ${failureText("ssh", orderly)}`,
    );
  }
  const forced = await controlHost(ctx).run(
    `sudo umount -l ${to} && ! mountpoint -q ${to}`,
  );
  throw new ProvisioningError(
    `Cannot unmount ${folder} on the control host: ${failureText("umount", orderly)}; ` +
      (succeeded(forced)
        ? "it was detached, and what was written to it may be incomplete"
        : `it is still mounted: ${failureText("umount -l", forced)}`),
  );
}
