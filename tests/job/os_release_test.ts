import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { systemClock } from "../../lib/clock.ts";
import { readRelease, type ReadReleaseOptions, releaseOf } from "../../lib/job/os_release.ts";

const UBUNTU =
  `NAME="Ubuntu"\nVERSION_ID="22.04"\nVERSION="22.04.5 LTS (Jammy Jellyfish)"\nID=ubuntu\n`;

Deno.test("the release is the point release, else VERSION_ID, and Core for Ubuntu Core", () => {
  assertEquals(releaseOf(UBUNTU), "22.04.5");
  assertEquals(releaseOf('ID=ubuntu-core\nVERSION_ID="22"\n'), "Core 22");
  assertEquals(releaseOf("ID=arch\nVERSION_ID=rolling\n"), "rolling");
  assertEquals(releaseOf("no such file"), "unknown");
  assertEquals(releaseOf(""), "unknown");
});

/** Runs with an `ssh` of our own first on the PATH. */
async function withSsh(
  script: string,
  test: (options: ReadReleaseOptions) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(join(folder, "ssh"), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    await test({
      username: "ubuntu",
      env: { PATH: `${folder}:${Deno.env.get("PATH")}` },
      clock: systemClock,
      signal: new AbortController().signal,
    });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("the release of a device is read over ssh, as the user of the tests", () =>
  withSsh(
    `case "$*" in *"ubuntu@10.1.1.1 cat /etc/os-release") printf '${
      UBUNTU.replaceAll("\n", "\\n")
    }';; *) exit 9;; esac`,
    async (options) => {
      assertEquals(await readRelease("10.1.1.1", options), "22.04.5");
    },
  ));

Deno.test("a device that cannot be reached has no known release, and that harms nothing", () =>
  withSsh("exit 255", async (options) => {
    assertEquals(await readRelease("10.1.1.1", options), "unknown");
  }));

Deno.test("an address or a user that would be an option of ssh is not given to it", () =>
  withSsh(`printf '${UBUNTU.replaceAll("\n", "\\n")}'`, async (options) => {
    assertEquals(await readRelease("-oProxyCommand=id", options), "unknown");
    assertEquals(await readRelease("10.1.1.1", { ...options, username: "-l" }), "unknown");
  }));
