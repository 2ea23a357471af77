/** A `maas` command that answers as a script says, and what the connector asked of it. */
import { Lab } from "./lab.ts";

/** Where the machine of the tests is, and who it is. */
export const MAAS_CONFIG = {
  agent_name: "a1",
  device_ip: "10.1.1.1",
  maas_user: "prof",
  node_id: "n0de",
};

/** How the fake answers. */
export interface MaasScript {
  /** `status_name` of each `machine read`, the last one again and again. */
  readonly statuses?: readonly string[];
  /** `ip_addresses` of each `machine read`. @default ["10.1.1.1"] */
  readonly addresses?: readonly string[];
  /** What `block-devices read` prints. @default [] */
  readonly devices?: unknown;
  /** Shell for the calls that begin with these two words: "machine deploy". $n counts all calls. */
  readonly on?: Readonly<Record<string, string>>;
}

/** A machine that can be released and deployed. */
const GOOD_LIFE = ["Ready", "Ready", "Deploying", "Deployed"];

/** Makes the lab's `maas` answer as told. Partitions get the ids 101, 102 ... */
export async function fakeMaas(lab: Lab, script: MaasScript = {}): Promise<void> {
  const { statuses = GOOD_LIFE, addresses = ["10.1.1.1"], devices = [] } = script;
  const words = (list: readonly string[]) => list.map((item) => `'${item}'`).join(" ");
  const on = Object.entries(script.on ?? {}).map(([call, text]) => `"${call}") ${text} ;;`);
  await lab.fake(
    "maas",
    `
count() { i=$(( $(cat "$1" 2>/dev/null || echo 0) + 1 )); echo $i > "$1"; }
case "$2 $3" in
${on.join("\n")}
"machine read")
  count "${lab.root}/reads"
  set -- ${words(statuses)}
  while [ $i -gt 1 ] && [ $# -gt 1 ]; do shift; i=$((i - 1)); done
  printf '{"status_name": "%s", "ip_addresses": %s}\\n' "$1" '${JSON.stringify(addresses)}' ;;
"node-script-results read") echo '[]' ;;
"version read") echo '{"version": "3.5.0"}' ;;
"block-devices read") echo '${JSON.stringify(devices)}' ;;
"volume-groups read") echo '[]' ;;
"partitions create") count "${lab.root}/partitions"; echo "{\\"id\\": $((100 + i))}" ;;
*) echo '{}' ;;
esac`,
  );
}

/** The calls of `maas`, each as one line without the profile. */
export async function maasCalls(lab: Lab): Promise<string[]> {
  return (await lab.calls("maas")).map(({ args }) => args.slice(1).join(" "));
}

/** A machine, and a job for it. */
export interface MachineSetup extends MaasScript {
  readonly config?: Record<string, unknown>;
  readonly job?: Record<string, unknown>;
  readonly ssh?: string;
}

/** A lab with a machine that maas2 deploys. */
export async function maasLab(setup: MachineSetup = {}): Promise<Lab> {
  const lab = await Lab.open();
  await lab.config({ ...MAAS_CONFIG, ...setup.config });
  await lab.job(setup.job ?? {});
  await fakeMaas(lab, setup);
  if (setup.ssh !== undefined) await lab.fake("ssh", setup.ssh);
  return lab;
}

/** What the error file says of a stage. */
export async function message(lab: Lab, stage = "provision"): Promise<string> {
  return (await lab.failure(stage)).exception_message ?? "";
}
