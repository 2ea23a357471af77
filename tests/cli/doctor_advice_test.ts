/** What doctor says of what goes wrong seldom; doctor_test.ts has the rest. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { systemClock } from "../../lib/clock.ts";
import { loadConnectors } from "../../connectors/registry.ts";
import { about, withFixture } from "./doctor_fixture.ts";

const TROUBLE = { status: 500, headers: { "content-type": "text/plain" } };

/** A check, what the server answers at a path, and what doctor says of that. */
const ANSWERS: readonly [string, string, () => Response, RegExp][] = [
  [
    "server",
    "/v1/",
    () => new Response("no such page", { status: 404 }),
    /^server: failed: what answers there is no Testflinger server: .*404.* -> correct server_address/,
  ],
  [
    "server",
    "/v1/",
    () => new Response("overloaded", TROUBLE),
    /^server: failed: .*500.* -> does the server run, and is the port right\? Try: curl -v/,
  ],
  [
    "clock",
    "/v1/",
    () => new Response("Testflinger Server v1", { headers: { date: "yesterday" } }),
    /^clock: skipped: the server does not tell the time$/,
  ],
  [
    "token",
    "/v1/oauth2/refresh",
    () => new Response("{}", { headers: { "content-type": "application/json" } }),
    /^token: failed: the server's answer holds no token -> is it a Testflinger server\?$/,
  ],
  [
    "token",
    "/v1/oauth2/refresh",
    () => new Response("not found", { status: 404 }),
    /^token: ok: the server is older than tokens: none is needed$/,
  ],
  [
    "role",
    "/v1/job",
    () => new Response("database gone", TROUBLE),
    /^role: failed: .*500.* -> the server itself has a problem: contact its administrator$/,
  ],
  [
    "agent",
    "/v1/agents/data/rpi4-1",
    () => new Response("database gone", TROUBLE),
    /^agent: failed: .*500.* -> the server itself has a problem: contact its administrator$/,
  ],
  [
    "agent",
    "/v1/agents/data/rpi4-1",
    () => Response.json(["what?"]),
    /^agent: failed: the server's answer is not valid -> is it a Testflinger server\?$/,
  ],
];

for (const [check, path, answer, expected] of ANSWERS) {
  Deno.test(`doctor's advice about ${check}: ${expected.source.slice(0, 70)}`, () =>
    withFixture({}, async ({ examine, served, folder }) => {
      await Deno.writeTextFile(
        `${folder}/token`,
        JSON.stringify({ refresh_token: "secret-1" }),
        { mode: 0o600 },
      );
      served.sandbox.addRefreshToken("secret-1");
      served.sandbox.intercept((request) =>
        new URL(request.url).pathname === path ? answer() : undefined
      );
      assertMatch(about(check, await examine()), expected);
    }));
}

Deno.test("doctor says which way the clock is wrong, and that a name is not known", () =>
  withFixture({}, async ({ examine }) => {
    const ahead = { ...systemClock, now: () => Date.now() + 7_200_000 };
    assertMatch(
      about("clock", await examine({ clock: ahead })),
      /^clock: failed: this host's clock is (2 h 0 min|1 h 59 min) ahead of the server's -> have NTP set both/,
    );
    const { agent } = await withName();
    assertMatch(
      about("server", await examine({ agent })),
      /^server: failed: .* -> correct the name in server_address, or this host's DNS$/,
    );
    async function withName() {
      const { readAgentRef } = await import("../../lib/cli/agents/agent_ref.ts");
      const folder = await Deno.makeTempDir();
      try {
        await Deno.writeTextFile(
          `${folder}/a.conf`,
          "agent_id: rpi4-1\nserver_address: http://no-such-host.invalid\njob_queues: [q]\n",
        );
        const read = await readAgentRef(`${folder}/a.conf`);
        if (!read.ok) throw new Error(read.message);
        return read;
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    }
  }));

Deno.test("doctor says of a phase command's device configuration what check says", () =>
  withFixture({
    agent: "provision_command: testflinger-device-connector noprovision provision -c " +
      "DIR/device.yaml testflinger.json\n",
    files: { "device.yaml": "device_ip: [1]\n" },
  }, async ({ examine }) => {
    assertMatch(
      about("configuration", await examine()),
      /^configuration: failed: DIR\/device.yaml:1:12: device_ip: .* -> correct it, then restart the agent$/m,
    );
  }));

Deno.test("doctor looks at the limit on open files of the agent that runs", () =>
  withFixture({}, async ({ examine, folder }) => {
    await Deno.mkdir(`${folder}/results/agent-rpi4-1`, { recursive: true });
    const lock = `${folder}/results/agent-rpi4-1/lock`;
    await Deno.writeTextFile(lock, "");
    // flock(1) holds the lock for the program that it becomes.
    await using holder = new Deno.Command("/bin/sh", {
      args: ["-c", `ulimit -n 300; exec flock --no-fork ${lock} sh -c 'echo held; exec cat'`],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const reader = holder.stdout.getReader();
    await reader.read();
    assertMatch(
      about("open files", await examine()),
      new RegExp(
        `^open files: failed: at most 300 of process ${holder.pid}; a large job may need ` +
          "more -> allow at least 1024: LimitNOFILE=",
      ),
    );
    await holder.stdin.close();
    await reader.read();
    reader.releaseLock();
    await holder.stdout.cancel();
  }));

Deno.test("doctor lists the programs of every connector that a phase calls, with their versions", async () => {
  for (const { name: connector, programs } of await loadConnectors()) {
    await withFixture({
      agent: `provision_command: testflinger-device-connector ${connector} provision -c ` +
        "DIR/device.yaml testflinger.json\n",
      files: { "device.yaml": "device_ip: 127.0.0.1\nssh_port: 1\nmaas_user: lab\n" },
    }, async ({ examine, folder }) => {
      const none = about("programs", await examine({ env: { PATH: "/nowhere", HOME: folder } }));
      assertEquals(
        none.split("\n").sort(),
        programs.map(({ name, install, onlyFor }) =>
          onlyFor === undefined
            ? `programs: failed: there is no ${name}, which ${connector} cannot do without -> ${install}`
            : `programs: warning: there is no ${name}, which ${connector} needs for ${onlyFor} -> ${install}`
        ).sort(),
      );
      await Deno.mkdir(`${folder}/bin`);
      for (const { name } of programs) {
        const script = `#!/bin/sh\nprintf '${name} 1.2\\033[2J\\nmore\\n'\n`;
        await Deno.writeTextFile(`${folder}/bin/${name}`, script, { mode: 0o755 });
      }
      const all = about(
        "programs",
        await examine({ env: { PATH: `${folder}/bin`, HOME: folder } }),
      );
      assertMatch(all, /^programs: ok: [^\n]*$/);
      for (const { name, version } of programs) {
        const said = version === undefined ? name : `${name} (${name} 1.2\u241b[2J)`;
        assert(all.includes(said), `${said} in ${all}`);
      }
    });
  }
});

Deno.test("doctor suspects no other process where an agent is about to start again, or a file keeps it offline", () =>
  withFixture({}, async ({ examine, served, folder }) => {
    served.sandbox.setAgent("rpi4-1", { state: "restart", comment: "Restart marker file" });
    assertEquals(
      about("agent", await examine()),
      "agent: ok: the server has 'rpi4-1' as restart: Restart marker file",
    );
    served.sandbox.setAgent("rpi4-1", { state: "offline", comment: "new card" });
    assertMatch(about("agent", await examine()), /^agent: warning: .* it is set online on/);
    served.sandbox.setAgent("rpi4-1", { state: "offline", comment: "Restart marker file" });
    assertEquals(
      about("agent", await examine()),
      "agent: ok: the server has 'rpi4-1' as offline: Restart marker file",
    );
    served.sandbox.setAgent("rpi4-1", { state: "offline", comment: "new card" });
    await Deno.writeTextFile(`${folder}/TESTFLINGER-DEVICE-OFFLINE-rpi4-1`, "new card");
    const lines = await examine();
    assertEquals(
      about("agent", lines),
      "agent: ok: the server has 'rpi4-1' as offline, as a file on this host asks",
    );
    assertMatch(about("requests", lines), /keeps the agent offline -> 'testflinger-agent online'/);
  }));

Deno.test("doctor advises nobody to give a folder away that was named as the token's file", () =>
  withFixture({}, async ({ examine, folder }) => {
    assertMatch(
      about("token", await examine({ tokenFile: folder })),
      /^token: failed: DIR cannot be read: .* -> name the file with the token: --token-file, or/,
    );
  }));
