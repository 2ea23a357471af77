import * as z from "zod";
import type { MaasCall, MaasSession } from "../client.ts";
import { fullMessageOf, MaasStorageError } from "../../support/errors.ts";
import { type BlockDevice, blockDevicesSchema, hasPhysicalVolume } from "./devices.ts";
import type { Partition, StorageLayout } from "./layout.ts";
import { planStorage, type StorageStep } from "./plan.ts";

const idSchema = z.looseObject({ id: z.int() });

/**
 * Makes the storage of a machine what the layout says. Nothing is changed when the layout does not
 * fit on it.
 *
 * @throws MaasStorageError naming the entry at fault; what MAAS said is its cause.
 */
export async function writeStorage(session: MaasSession, layout: StorageLayout): Promise<void> {
  const { ctx, maas } = session;
  const devices = await named(session, () => readDevices(session));
  const volumeGroups = devices.some(hasPhysicalVolume)
    ? await named(session, () => readVolumeGroups(session))
    : [];
  const plan = planStorage(layout, { node: maas.node, devices, volumeGroups });
  ctx.log.info("Writing the storage layout");
  const created = new Map<Partition, number>();
  for (const step of plan.clear) {
    await named(
      session,
      () => maas.call(wordsOf(step, created), { step: step.step, repeatMayBeRefused: true }),
    );
  }
  for (const step of plan.apply) {
    await named(session, async () => {
      if (step.creates === undefined) {
        await maas.call(wordsOf(step, created), { step: step.step });
      } else {
        const id = await create(session, step, { created, before: devices });
        created.set(step.creates.partition, id);
      }
    });
  }
}

/** @returns the id of the new partition. */
async function create(
  session: MaasSession,
  step: StorageStep,
  { created, before }: {
    readonly created: ReadonlyMap<Partition, number>;
    readonly before: readonly BlockDevice[];
  },
): Promise<number> {
  const { id } = await session.maas.read(wordsOf(step, created), {
    step: step.step,
    schema: idSchema,
    doneAlready: async () => {
      // A partition that nobody knows is the one whose answer was lost.
      const known = [...created.values(), ...partitionIds(before)];
      const devices = await readDevices(session, { retry: false });
      const lost = partitionIds(devices.filter(({ id }) => id === step.creates?.device))
        .find((id) => !known.includes(id));
      return lost === undefined ? undefined : JSON.stringify({ id: lost });
    },
  });
  return id;
}

function partitionIds(devices: readonly BlockDevice[]): number[] {
  return devices.flatMap(({ partitions }) => (partitions ?? []).map(({ id }) => id));
}

function wordsOf(step: StorageStep, created: ReadonlyMap<Partition, number>): string[] {
  return step.words.map((word) => {
    if (typeof word === "string") return word;
    const id = created.get(word.partition);
    if (id === undefined) throw new Error(`The partition '${word.partition.id}' is not there yet`);
    return String(id);
  });
}

async function readDevices(
  { maas }: MaasSession,
  options: Pick<MaasCall, "retry"> = {},
): Promise<BlockDevice[]> {
  return await maas.read(["block-devices", "read", maas.node], {
    step: "read the machine's block devices",
    schema: blockDevicesSchema,
    ...options,
  });
}

async function readVolumeGroups({ maas }: MaasSession): Promise<number[]> {
  const groups = await maas.read(["volume-groups", "read", maas.node], {
    step: "read the machine's volume groups",
    schema: z.array(idSchema),
  });
  return groups.map(({ id }) => id);
}

async function named<T>({ ctx }: MaasSession, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    ctx.signal.throwIfAborted();
    throw new MaasStorageError(`Cannot write the storage layout: ${fullMessageOf(error)}`, {
      cause: error,
    });
  }
}
