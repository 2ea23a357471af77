/** A control host with real block devices and real mounts: this host, for the superuser. */
import { join } from "node:path";
import {
  isInstalled,
  output,
  SSH_TOOLS,
  type SshServer,
  testWithTools,
} from "../../support/sshd.ts";
import { unmount } from "../../support/unmount.ts";

/**
 * lsblk for a kernel that does not look for partitions on loop devices, or a host without udev,
 * which is where the real one has labels from: each partition gets a loop device of its own.
 */
const LSBLK = `found=$(/usr/bin/lsblk "$@") || exit
case "$*" in *-J*) ;; *) echo "$found"; exit;; esac
case "$found" in *'"label": "'*|*'"label":"'*) echo "$found"; exit;; esac
for device; do :; done
file=$(losetup -n -O BACK-FILE "$device")
name() { printf '{"name": "%s", "label": "%s"' "$(basename "$1")" "$(blkid -p -s LABEL -o value "$1")"; }
printf '{"blockdevices": ['; name "$device"
separator=', "children": ['
sfdisk -d "$file" 2>/dev/null | sed -n 's/.*start= *\\([0-9]*\\), size= *\\([0-9]*\\),.*/\\1 \\2/p' > "$0.parts"
while read -r start size; do
  part=$(losetup -f --show -o $((start * 512)) --sizelimit $((size * 512)) "$file")
  echo "$part" >> "$0.loops"
  printf '%s' "$separator"; name "$part"; printf '}'
  separator=', '
done < "$0.parts"
[ "$separator" = ', ' ] && printf ']'
echo '}]}'`;

/** Programs that the control host and its clients need. */
const LOOP_TOOLS = [
  ...SSH_TOOLS,
  "sshpass",
  "ssh-copy-id",
  "losetup",
  "lsblk",
  "blkid",
  "sfdisk",
  "sudo",
];

let loops: Promise<boolean> | undefined;

/**
 * A test that mounts what lies in files, with these `tools` besides. That needs the superuser, and
 * a kernel that has it: otherwise the test fails in CI, and elsewhere is skipped, and its name says why.
 */
export async function testWithLoops(
  name: string,
  { tools, test }: { readonly tools: readonly string[]; readonly test: () => Promise<void> },
): Promise<void> {
  const needed = [...LOOP_TOOLS, ...tools];
  // Without the tools nobody knows; that is not to pass for a host that cannot.
  const unknown = Deno.uid() === 0 && !needed.every(isInstalled);
  if (unknown || await (loops ??= loopMountsWork())) {
    testWithTools(name, needed, test);
  } else if (Deno.env.get("CI") === "true") {
    Deno.test(name, () => {
      throw new Error("Cannot test this without loop mounts: run it as root, with loop devices");
    });
  } else {
    // Justified: a developer need not be root or have loop devices, and nothing can replace
    // either. CI has both; there the test fails above instead.
    Deno.test.ignore(`${name} (skipped: loop mounts are not possible here)`, test);
  }
}

/** Whether this host lets us mount file systems that lie in files. */
async function loopMountsWork(): Promise<boolean> {
  if (Deno.uid() !== 0 || !isInstalled("losetup") || !isInstalled("mkfs.ext4")) return false;
  const folder = await Deno.makeTempDir({ prefix: "loop-" });
  try {
    const image = join(folder, "image");
    await Deno.writeFile(image, new Uint8Array(4 * 1024 * 1024));
    await output(["mkfs.ext4", "-q", "-F", image]);
    await Deno.mkdir(join(folder, "mnt"));
    await output(["mount", "-o", "loop", image, join(folder, "mnt")]);
    await unmount(join(folder, "mnt"));
    return true;
  } catch {
    return false;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The control host. Its loop devices are gone when it is closed. */
export class LoopControlHost implements AsyncDisposable {
  readonly #devices: string[] = [];
  #isClosed = false;

  private constructor(readonly server: SshServer) {}

  static async open(server: SshServer): Promise<LoopControlHost> {
    await server.program("lsblk", LSBLK);
    // Only what is ours: the whole host's disks are not the tests' business. But that it must: where
    // something else on the host has made a mount namespace meanwhile, unmounting writes nothing.
    await server.program(
      "sync",
      `for folder in /mnt/${server.agentName}/*; do ` +
        `if mountpoint -q "$folder"; then /usr/bin/sync -f "$folder" || exit; fi; done`,
    );
    return new LoopControlHost(server);
  }

  /** A block device, and the file that it is. */
  async blockDevice(size: number): Promise<{ device: string; file: string }> {
    const file = join(this.server.root, "block-device");
    await Deno.writeFile(file, new Uint8Array());
    await Deno.truncate(file, size);
    const device = await output(["losetup", "--find", "--show", "--partscan", file]);
    this.#devices.push(device);
    return { device, file };
  }

  /** What connectors have mounted here. */
  async mounts(): Promise<string[]> {
    const mounts = await output(["cat", "/proc/self/mounts"]);
    return mounts.split("\n").filter((line) => line.includes(`/mnt/${this.server.agentName}/`));
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const listed = await Deno.readTextFile(join(this.server.bin, "lsblk.loops")).catch(() => "");
    for (const device of [...listed.trim().split("\n").filter(Boolean), ...this.#devices]) {
      await output(["losetup", "--detach", device]);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
