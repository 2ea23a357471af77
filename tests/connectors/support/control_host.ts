/** A control host with a storage multiplexer, as the lab's ssh and scp reach it. */
import { join } from "node:path";
import type { Lab } from "./lab.ts";

/** Programs of the real system that commands on the control host may use. */
const REAL = [
  "bash",
  "bunzip2",
  "cat",
  "chmod",
  "cmp",
  "cp",
  "cut",
  "env",
  "false",
  "find",
  "gzip",
  "head",
  "ln",
  "ls",
  "mkdir",
  "mkfifo",
  "mktemp",
  "mv",
  "printf",
  "readlink",
  "realpath",
  "rm",
  "rmdir",
  "sed",
  "sh",
  "sha256sum",
  "sleep",
  "tail",
  "tee",
  "test",
  "touch",
  "true",
  "unlzma",
  "unxz",
  "wc",
  "xz",
  "zcat",
  "zstdcat",
];

/** A file system of the image that is to be found on the medium. */
export interface ImagePartition {
  /** Such as `sda2`. */
  readonly name: string;
  readonly label: string | null;
  /** Files in it: content, a link's target after `->`, or null for a folder. */
  readonly files?: Readonly<Record<string, string | null>>;
}

/**
 * The control host. Commands that come by ssh really run, in a shell, on files below `root`: its
 * `/mnt`, `/tmp` and `/dev/sd*`. What has to do with hardware is faked, and every program that is
 * faked writes down that it was called.
 */
export class ControlHost {
  readonly root: string;
  readonly #bin: string;
  readonly #log: string;

  private constructor(readonly lab: Lab) {
    this.root = join(lab.root, "control");
    this.#bin = join(this.root, "bin");
    this.#log = join(this.root, "log");
  }

  /** Sets up the control host, with `partitions` to be found after flashing. */
  static async open(lab: Lab, partitions: readonly ImagePartition[]): Promise<ControlHost> {
    const host = new ControlHost(lab);
    for (const folder of ["bin", "dev", "mnt", "tmp", "parts", "mounts"]) {
      await Deno.mkdir(join(host.root, folder), { recursive: true });
    }
    for (const program of REAL) {
      for (const folder of ["/usr/bin", "/bin"]) {
        const path = join(folder, program);
        if (!await exists(path) || await exists(join(host.#bin, program))) continue;
        await Deno.symlink(path, join(host.#bin, program));
      }
    }
    await Deno.writeTextFile(join(host.root, "dev/sda"), "");
    await host.#putPartitions(partitions);
    await host.#fakes(partitions);
    return host;
  }

  /** What the faked programs were asked to do, in order, with this host's own paths. */
  async done(): Promise<string[]> {
    const text = await Deno.readTextFile(this.#log).catch(() => "");
    return text.split("\n").filter((line) => line !== "").map((line) =>
      line.replaceAll(this.root, "")
    );
  }

  /** Makes a program do what `script` says; `hang` never comes back. It is written down. */
  async fake(program: string, script: string): Promise<void> {
    const path = join(this.#bin, program);
    await Deno.remove(path).catch(() => {});
    await Deno.writeTextFile(
      path,
      `#!/bin/sh
printf '%s\\n' "${program}\${1:+ $*}" >> "${this.#log}"
hang() { : > "${this.lab.root}/notes/hung.$$"; exec sleep 100000; }
R="${this.root}"
${script}
`,
      { mode: 0o755 },
    );
  }

  /** Has a program do `script` before what it does anyway. */
  async wrap(program: string, script: string): Promise<void> {
    const path = join(this.#bin, program);
    const behind = join(this.#bin, `${program}-itself`);
    await Deno.rename(path, behind);
    await Deno.writeTextFile(path, `#!/bin/sh\n${script}\nexec "${behind}" "$@"\n`, {
      mode: 0o755,
    });
  }

  /** Takes a program away. */
  async remove(program: string): Promise<void> {
    await Deno.remove(join(this.#bin, program));
  }

  /** Makes lsblk print this. */
  async blockDevices(device: unknown): Promise<void> {
    await Deno.writeTextFile(
      join(this.root, "lsblk.json"),
      JSON.stringify({ blockdevices: [device] }),
    );
    await this.fake("lsblk", 'case "$*" in *-J*) cat "$R/lsblk.json";; esac');
  }

  /** A file of a partition. */
  read(partition: string, file: string): Promise<string> {
    return Deno.readTextFile(join(this.root, "parts", partition, file));
  }

  has(partition: string, file: string): Promise<boolean> {
    return exists(join(this.root, "parts", partition, file));
  }

  /** What has been written to /dev/sda (or another device). */
  written(device = "sda"): Promise<Uint8Array> {
    return Deno.readFile(join(this.root, "dev", device));
  }

  /** The folders that something is mounted at. */
  async mounted(): Promise<string[]> {
    const names: string[] = [];
    for await (const { name } of Deno.readDir(join(this.root, "mounts"))) names.push(name);
    return names.sort();
  }

  async #putPartitions(partitions: readonly ImagePartition[]): Promise<void> {
    for (const { name, files = {} } of partitions) {
      const top = join(this.root, "parts", name);
      await Deno.mkdir(top, { recursive: true });
      for (const [path, content] of Object.entries(files)) {
        const file = join(top, path);
        await Deno.mkdir(content === null ? file : join(file, ".."), { recursive: true });
        if (content?.startsWith("->")) await Deno.symlink(content.slice(2), file);
        else if (content !== null) await Deno.writeTextFile(file, content);
      }
    }
  }

  async #fakes(partitions: readonly ImagePartition[]): Promise<void> {
    await this.fake("stm", "");
    // Not written down: what it runs is.
    await Deno.writeTextFile(
      join(this.#bin, "sudo"),
      '#!/bin/sh\ncommand -v "$1" >/dev/null || { echo "sudo: $1: command not found" >&2; exit 1; }\n' +
        'exec "$@"\n',
      { mode: 0o755 },
    );
    await this.fake("dd", 'exec /bin/dd "$@"');
    await this.fake("sync", "");
    await this.fake("hdparm", "");
    const children = partitions.map(({ name, label }) => ({ name, label }));
    await this.blockDevices({ name: "sda", label: null, children });
    // A mount is a link in place of its folder.
    await this.fake(
      "mount",
      `part="$R/parts/$(basename "$3")"; test -d "$part" || { echo "no such device" >&2; exit 32; }
rmdir "$4" && ln -s "$part" "$4" && touch "$R/mounts/$(basename "$4")"`,
    );
    await this.fake(
      "umount",
      `[ "$1" = -l ] && shift
case "$1" in "$R"/mnt/*) ;; *) echo "umount: $1: not mounted" >&2; exit 32;; esac
test -L "$1" || { echo "umount: $1: not mounted" >&2; exit 32; }
rm "$1" && mkdir "$1" && rm "$R/mounts/$(basename "$1")"`,
    );
    await Deno.symlink("/usr/bin/basename", join(this.#bin, "basename"));
    await Deno.writeTextFile(join(this.#bin, "mountpoint"), '#!/bin/sh\ntest -L "$2"\n', {
      mode: 0o755,
    });
    await this.lab.fake("ssh", this.sshScript());
    await this.lab.fake(
      "scp",
      `for last; do from="$to"; to="$last"; done; exec cp "$from" "${this.root}\${to#*:}"`,
    );
  }

  /** What the fake ssh does with a command: run it here, with this host's paths and programs. */
  sshScript(): string {
    return `for command; do :; done
command=$(printf '%s' "$command" | sed 's#/tmp/a1#${this.root}/tmp/a1#g; s#/mnt/#${this.root}/mnt/#g; ` +
      `s#/dev/sd#${this.root}/dev/sd#g; s#test -b#test -e#g')
cd "${this.root}" && PATH="${this.#bin}" exec sh -c "$command"`;
  }
}

function exists(path: string): Promise<boolean> {
  return Deno.lstat(path).then(() => true, () => false);
}
