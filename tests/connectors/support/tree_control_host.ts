/**
 * A control host for which nobody needs any privilege: its medium is a file, and what is mounted of
 * it is a folder that stands ready.
 */
import { join } from "node:path";
import type { SshServer } from "../../support/sshd.ts";

/**
 * Where connectors mount something on the control host, they do it in the server's folder; and a file
 * passes for a block device.
 */
export const FORCE_TREE = `exec sh -c "$(printf '%s' "$SSH_ORIGINAL_COMMAND" | ` +
  `sed 's#/mnt/#{root}/mnt/#g; s#test -b#test -f#g')"`;

/**
 * Prepares a plain Ubuntu system in the server's folder `tree`.
 *
 * @returns the medium: an empty file.
 */
export async function prepareTree(server: SshServer): Promise<string> {
  const { root } = server;
  await Deno.mkdir(join(root, "tree/etc/cloud/cloud.cfg.d"), { recursive: true });
  const medium = join(root, "medium");
  await Deno.writeFile(medium, new Uint8Array());
  await server.program("sudo", 'exec "$@"');
  // The whole host's disks are not the tests' business.
  await server.program("sync", "");
  await server.program("hdparm", "");
  await server.program(
    "lsblk",
    `case "$*" in *-J*) echo '{"blockdevices": [{"name": "medium", "label": null, "children": [` +
      `{"name": "medium1", "label": "writable"}]}]}';; esac`,
  );
  await server.program("mountpoint", 'test -L "$2"');
  await server.program("mount", `rmdir "$4" && ln -s "${root}/tree" "$4"`);
  await server.program("umount", 'case "$1" in */mnt/*) rm "$1" && mkdir "$1";; *) exit 32;; esac');
  return medium;
}
