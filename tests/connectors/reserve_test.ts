/** The stage reserve. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { parseDuration } from "../../connectors/support/stage/reserve.ts";
import { Lab } from "./support/lab.ts";

const CONFIG = { agent_name: "a1", device_ip: "10.1.1.1" };

Deno.test("00-common 12: reserve installs the keys that there are, says where to log in, and waits", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, serial_host: "console", serial_port: "7001" });
  await lab.job({ job_id: "j1", reserve_data: { ssh_keys: ["lp:ok", "lp:missing"], timeout: 2 } });
  await lab.fake(
    "ssh-import-id",
    `case "$*" in *missing) echo "status_code=404 user=missing" >&2; exit 1;; esac
     echo "ssh-ed25519 KEY ok" >> "$2"`,
  );
  const { code, stdout } = await lab.stage("noprovision", "reserve");
  assertEquals(code, 0);
  const ssh = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
  assertEquals((await lab.calls()).map(({ program, args }) => [program, ...args]), [
    ["ssh-import-id", "-o", "key.pub", "--", "lp:ok"],
    ["ssh-import-id", "-o", "key.pub", "--", "lp:missing"],
    [
      "ssh-copy-id",
      "-f",
      "-i",
      "key.pub",
      ...ssh,
      "-o",
      "ConnectTimeout=10",
      "-o",
      "NumberOfPasswordPrompts=1",
      "ubuntu@10.1.1.1",
    ],
  ]);
  assertEquals(await lab.read("key.pub"), "ssh-ed25519 KEY ok\n");
  assertStringIncludes(stdout, "*** TESTFLINGER SYSTEM RESERVED ***\n");
  assertEquals(lab.clock.elapsed, 2_000);
});

Deno.test("00-common 12.4: the lines of a reservation are these, in this order, with nothing between", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, serial_host: "console", serial_port: 7001 });
  await lab.job({ job_id: "j1", reserve_data: { timeout: 2 } });
  const { stdout } = await lab.stage("noprovision", "reserve");
  assertEquals(
    stdout,
    `*** TESTFLINGER SYSTEM RESERVED ***
You can now connect to ubuntu@10.1.1.1
Serial access is available via: telnet console 7001
Current time:           [2026-01-01T00:00:00+00:00]
Reservation expires at: [2026-01-01T00:00:02+00:00]
Reservation will automatically timeout in 2 seconds
To end the reservation sooner use: testflinger-cli cancel j1
`,
  );
});

Deno.test("00-common 12.4: the address is where scripts in the field look for it, with and without serial", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...CONFIG, serial_host: "", serial_port: 0 });
  await lab.job({ reserve_data: { timeout: 2 }, test_data: { test_username: "Bob-1" } });
  const { stdout } = await lab.stage("noprovision", "reserve");
  assertEquals(stdout.split("\n").length, 7);
  assertEquals(stdout.includes("Serial"), false);
  const find = new Deno.Command("sh", {
    args: ["-c", `grep -m 1 "^You can now connect to" | sed -n "s/.*@\\([0-9.]*\\).*/\\1/p"`],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const input = find.stdin.getWriter();
  await input.write(new TextEncoder().encode(stdout));
  await input.close();
  assertEquals(new TextDecoder().decode((await find.output()).stdout), "10.1.1.1\n");
  assertStringIncludes(stdout, "You can now connect to Bob-1@10.1.1.1\n");
});

Deno.test("reserve tries ten times to import a key, and says when none could be installed", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ reserve_data: { ssh_keys: ["lp:slow", "--help", 7], timeout: "1m30s" } });
  await lab.fake("ssh-import-id", "echo server error; exit 1");
  const { code, stdout, stderr } = await lab.stage("noprovision", "reserve");
  assertEquals(code, 0);
  assertEquals((await lab.calls("ssh-import-id")).length, 10);
  assertEquals(lab.clock.paused, [
    1_000,
    2_000,
    4_000,
    8_000,
    16_000,
    32_000,
    64_000,
    100_000,
    100_000,
    90_000,
  ]);
  assertEquals(await lab.calls("ssh-copy-id"), []);
  assertStringIncludes(stdout, "no ssh key could be installed");
  assertStringIncludes(stderr, `"--help" in 'reserve_data.ssh_keys' is neither`);
});

Deno.test("reserve without keys just waits, without a warning", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ reserve_data: { timeout: 5 } });
  const { code, stdout } = await lab.stage("noprovision", "reserve");
  assertEquals(code, 0);
  assert(stdout.startsWith("*** TESTFLINGER SYSTEM RESERVED ***\n"));
  assertEquals(await lab.calls(), []);
});

Deno.test("reserve goes on when the keys cannot be copied", async () => {
  await using lab = await Lab.open();
  await lab.config(CONFIG);
  await lab.job({ reserve_data: { ssh_keys: ["gh:me"], timeout: null } });
  await lab.fake("ssh-import-id", 'echo "ssh-rsa KEY me" >> "$2"');
  await lab.fake("ssh-copy-id", "exit 1");
  const { code, stdout } = await lab.stage("noprovision", "reserve");
  assertEquals(code, 0);
  assertEquals((await lab.calls("ssh-copy-id")).length, 10);
  assertEquals(lab.clock.elapsed, 9 * 60_000 + 3_600_000);
  assertStringIncludes(stdout, "*** TESTFLINGER SYSTEM RESERVED ***");
});

Deno.test("durations are numbers of seconds, digits, or counts with units", () => {
  for (
    const [value, seconds] of [
      [0, 0],
      [90, 90],
      ["90", 90],
      ["30s", 30],
      ["30sec", 30],
      ["30m", 1_800],
      ["30min", 1_800],
      ["5h", 18_000],
      ["5hour", 18_000],
      ["4d", 345_600],
      ["4day", 345_600],
      ["1d5h30m", 106_200],
      ["1h 30min", 5_400],
    ] as const
  ) assertEquals(parseDuration(value), seconds, String(value));
});

Deno.test("what is no duration is refused", () => {
  for (const value of [-1, NaN, Infinity, "", "-5", "soon", "5x", "h", "1.5h", [], {}, true]) {
    assertEquals(parseDuration(value), undefined, JSON.stringify(value));
  }
});
