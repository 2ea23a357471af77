/** What doctor says of a control host that connectors run commands on: a real ssh server. */
import { assertEquals, assertMatch } from "@std/assert";
import { join } from "node:path";
import { SSH_TOOLS, SshServer, testWithTools } from "../support/sshd.ts";
import { about, withFixture } from "./doctor_fixture.ts";

const CHECK = "control host programs";

/** A server whose commands find nothing but what is in its folder `programs`. */
async function bareServer(programs: readonly string[]): Promise<SshServer> {
  const server = await SshServer.open({
    forceCommand: `PATH={root}/programs exec /bin/sh -c ` +
      `"$(printf '%s' "$SSH_ORIGINAL_COMMAND" | sed 's#PATH="[^"]*";##')"`,
  });
  const folder = join(server.root, "programs");
  await Deno.mkdir(folder);
  for (const name of programs) {
    await Deno.writeTextFile(join(folder, name), "", { mode: 0o755 });
  }
  return server;
}

async function examine(server: SshServer, changes: Record<string, string> = {}): Promise<string> {
  let said = "";
  await withFixture({
    agent: "provision_command: testflinger-device-connector muxpi provision -c DIR/device.yaml " +
      "testflinger.json\n",
    files: {
      "device.yaml": JSON.stringify({
        agent_name: "a1",
        device_ip: "127.0.0.1",
        control_host: "127.0.0.1",
        control_host_ssh_port: server.port,
        control_user: server.user,
        test_device: "/dev/sda",
      }),
    },
  }, async ({ examine }) => {
    said = about(CHECK, await examine({ env: { ...server.env, ...changes } }));
  });
  return said.replaceAll(server.user, "USER");
}

testWithTools(
  "doctor names what a control host lacks that muxpi runs there",
  SSH_TOOLS,
  async () => {
    await using server = await bareServer([
      ...["sudo", "lsblk", "mount", "umount", "mountpoint", "zstdcat", "unxz", "zcat", "bunzip2"],
      ...["unlzma", "funzip"],
    ]);
    assertEquals((await examine(server)).split("\n"), [
      `${CHECK}: failed: 127.0.0.1 has no hdparm, which muxpi cannot do without -> apt install hdparm`,
      `${CHECK}: warning: 127.0.0.1 has no lz4cat, which muxpi needs for lz4 images -> apt install lz4`,
      `${CHECK}: ok: 127.0.0.1 has sudo, lsblk, mount, umount, mountpoint, zstdcat, unxz, unlzma, ` +
      `zcat, bunzip2, funzip`,
    ]);
  },
);

testWithTools("doctor says that a control host does not let the agent in", SSH_TOOLS, async () => {
  await using server = await bareServer([]);
  await Deno.remove(join(server.home, ".ssh/authorized_keys"));
  assertMatch(
    await examine(server),
    /^control host programs: failed: USER@127\.0\.0\.1 cannot be asked by ssh: .*Permission denied.* -> as the agent's user: ssh-copy-id USER@127\.0\.0\.1$/,
  );
  assertMatch(
    await examine(server, { PATH: "/nowhere" }),
    /^control host programs: failed: USER@127\.0\.0\.1 cannot be asked by ssh: .*ssh.* -> /,
  );
});
