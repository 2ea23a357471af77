/** A board behind a multiplexer, with an image and a control host whose commands really run. */
import { join } from "node:path";
import { ControlHost, type ImagePartition } from "./control_host.ts";
import { Lab, type Run } from "./lab.ts";
import { closedPort } from "./stubs.ts";

export const CONFIG = {
  agent_name: "a1",
  device_ip: "10.1.1.1",
  control_host: "127.0.0.1",
  control_host_port: closedPort(),
  test_device: "/dev/sda",
};

export const UBUNTU: readonly ImagePartition[] = [
  { name: "sda1", label: "system-boot" },
  {
    name: "sda2",
    label: "writable",
    files: { "etc/cloud/cloud.cfg.d/99-fake_cloud.cfg": "x", "etc/hostname": "ubuntu" },
  },
];

/** No image of a disk begins like that, but no text either. */
export const IMAGE = Uint8Array.from({ length: 100_000 }, (_, i) => (i * 7) % 251);

export interface Bench {
  readonly lab: Lab;
  readonly host: ControlHost;
}

/** A lab with an attached image, and a control host with a medium of `partitions`. */
export async function bench(partitions: readonly ImagePartition[] = UBUNTU): Promise<Bench> {
  const lab = await Lab.open();
  const host = await ControlHost.open(lab, partitions);
  await lab.config(CONFIG);
  await attach(lab, "i.img", IMAGE);
  await lab.job({ provision_data: { use_attachment: "i.img" } });
  return { lab, host };
}

export async function attach(lab: Lab, name: string, content: Uint8Array): Promise<void> {
  await Deno.mkdir(join(lab.cwd, "attachments/provision"), { recursive: true });
  await Deno.writeFile(join(lab.cwd, "attachments/provision", name), content);
}

export function provision(lab: Lab): Promise<Run> {
  return lab.stage("muxpi", "provision");
}

export async function message(lab: Lab): Promise<string> {
  return (await lab.failure("provision")).exception_message ?? "";
}

export async function names(folder: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name } of Deno.readDir(folder)) found.push(name);
  return found.sort();
}

export function exists(path: string): Promise<boolean> {
  return Deno.lstat(path).then(() => true, () => false);
}
