import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { readAgentRef } from "../../lib/cli/agents/agent_ref.ts";
import { PERMISSIONS } from "../../lib/cli/command.ts";
import { systemClock } from "../../lib/clock.ts";
import { certificates } from "../support/certificates.ts";
import { TempFolder } from "../support/temp_folder.ts";
import { about, withFixture } from "./doctor_fixture.ts";
import { AGENT, run, withFiles } from "./support.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;

Deno.test("doctor finds nothing wrong with an agent that could work, and takes no job", () =>
  withFixture({}, async ({ examine, served }) => {
    const jobId = served.sandbox.submit({ job_queue: "rpi4" });
    const lines = await examine();
    assertEquals(lines.filter((line) => !/^[a-z ]+: ok: /.test(line)), []);
    assertEquals(served.sandbox.state(jobId), "waiting");
    assertEquals(served.sandbox.agent("rpi4-1"), undefined);
    assertEquals(served.sandbox.requests.filter(({ method }) => method !== "GET"), []);
    assertStringIncludes(about("agent", lines), "its first start makes it known");
  }));

Deno.test("doctor says what is wrong with the configuration and with the folders", () =>
  withFixture(
    { agent: "test_command: no-such-program\n", files: { run: "a file" } },
    async ({ examine }) => {
      const lines = await examine();
      assertMatch(
        about("configuration", lines),
        /^configuration: warning: .*there is no program 'no-such-program' .* -> correct it, unless/m,
      );
      assertEquals(
        about("folders", lines).replace(/owned by \S+,/, "owned by NAME,"),
        "folders: failed: execution_basedir: DIR/run is not a folder -> make DIR/run by hand, owned by " +
          "NAME, or configure another execution_basedir",
      );
    },
  ));

Deno.test("doctor says that the disk is fuller than min_free_space allows", () =>
  withFixture({ agent: "max_spool: 1 GiB\n" }, async ({ examine, folder }) => {
    await Deno.writeTextFile(
      `${folder}/full.conf`,
      (await Deno.readTextFile(`${folder}/a.conf`)).replace(
        "min_free_space: 0",
        "min_free_space: 8000 TiB",
      ),
    );
    const read = await readAgentRef(`${folder}/full.conf`);
    if (!read.ok) throw new Error(read.message);
    const lines = await examine({ agent: read.agent });
    assertMatch(
      about("space", lines),
      /^space: failed: DIR has [\d.]+ [KMG]iB free, and min_free_space is [\d.]+ GiB -> no job is taken before/,
    );
  }));

Deno.test("doctor names the process that runs under the same agent_id with other folders", () =>
  withFixture({}, async ({ examine, folder }) => {
    const lock = await Deno.open(`${folder}/testflinger-agent-rpi4-1.lock`, {
      write: true,
      create: true,
    });
    try {
      assert(lock.tryLockSync(true));
      assertMatch(
        about("lock", await examine()),
        new RegExp(
          `^lock: failed: process ${Deno.pid} \\(.*\\) runs as agent 'rpi4-1' with another ` +
            "results_basedir -> stop it, or give one of the two another agent_id$",
        ),
      );
    } finally {
      lock.close();
    }
    await Deno.remove(`${folder}/testflinger-agent-rpi4-1.lock`);
    await Deno.symlink("/etc/passwd", `${folder}/testflinger-agent-rpi4-1.lock`);
    assertMatch(about("lock", await examine()), /^lock: failed: .* -> remove it: /);
    await Deno.remove(`${folder}/testflinger-agent-rpi4-1.lock`);
    await Deno.mkdir(`${folder}/results/agent-rpi4-1`, { recursive: true });
    const own = await Deno.open(`${folder}/results/agent-rpi4-1/lock`, {
      write: true,
      create: true,
    });
    assert(own.tryLockSync(true));
    const lines = await examine();
    own.close();
    assertEquals(about("lock", lines), `lock: ok: held by the agent, process ${Deno.pid}`);
    assertMatch(
      about("agent", lines),
      /^agent: failed: 'rpi4-1' runs here, and the server does not/,
    );
  }));

Deno.test("doctor says that too few files may be open", () =>
  withFixture({}, async ({ folder }) => {
    const { stdout } = await new Deno.Command("/bin/sh", {
      args: [
        "-c",
        'ulimit -n 256 && exec "$0" run --quiet "$@"',
        Deno.execPath(),
        ...PERMISSIONS,
        MAIN,
        "doctor",
        "-c",
        `${folder}/a.conf`,
        "--token-file",
        `${folder}/token`,
      ],
      stdin: "null",
    }).output();
    assertMatch(
      new TextDecoder().decode(stdout),
      /^failed +open files +at most 256 in this shell; .* -> allow at least 1024: LimitNOFILE=/m,
    );
  }));

Deno.test("doctor tells of markers that are ignored, and of one that keeps the agent offline", () =>
  withFixture({}, async ({ examine, folder }) => {
    await Deno.writeTextFile(`${folder}/TESTFLINGER-DEVICE-OFFLINE-rpi41`, "");
    await Deno.symlink("/etc/passwd", `${folder}/TESTFLINGER-DEVICE-RESTART-rpi4-1`);
    assertEquals(about("requests", await examine()).split("\n"), [
      "requests: warning: DIR/TESTFLINGER-DEVICE-OFFLINE-rpi41 keeps the agent offline -> " +
      "'testflinger-agent online' removes it",
      "requests: failed: DIR/TESTFLINGER-DEVICE-RESTART-rpi4-1 is ignored: it must be a regular file of " +
      "root or of the agent's user -> remove it, and use 'testflinger-agent restart' as one of those users",
    ]);
  }));

Deno.test("doctor says that nothing listens at the server's address, and skips what follows", () =>
  withFixture({}, async ({ examine, served }) => {
    await served.close();
    const lines = await examine();
    assertMatch(
      about("server", lines),
      /^server: failed: GET http:.*refused.* -> does the server run/i,
    );
    for (const check of ["clock", "token", "role", "agent"]) {
      assertMatch(about(check, lines), new RegExp(`^${check}: skipped: `));
    }
  }));

Deno.test("doctor tells a server that is none of Testflinger's", () =>
  withFixture({}, async ({ examine, served }) => {
    served.sandbox.intercept(() => new Response("<html>Welcome to nginx", { status: 200 }));
    assertEquals(
      about("server", await examine()).replace(/http:\S+/, "URL"),
      "server: failed: what answers there is no Testflinger server: GET URL the answer cannot be " +
        "used: it is HTML, not JSON -> correct server_address: the address of the server itself, without /v1 and without " +
        "a page's path",
    );
    served.sandbox.intercept(() => new Response("", { status: 404 }));
  }));

Deno.test("doctor says by how much the clock is wrong", () =>
  withFixture({}, async ({ examine }) => {
    const clock = { ...systemClock, now: () => Date.now() - 3_600_000 };
    assertMatch(
      about("clock", await examine({ clock })),
      /^clock: failed: this host's clock is (1 h 0 min|59 min \d+ s) behind the server's -> have NTP set both/,
    );
  }));

Deno.test("doctor tells a missing token, a wrong file, a refused token and a wrong role apart", () =>
  withFixture({ sandbox: { tokens: true } }, async ({ examine, folder, served }) => {
    const none = await examine();
    assertEquals(
      about("token", none),
      "token: ok: there is no DIR/token: the server is asked without one",
    );
    assertMatch(
      about("role", none),
      /^role: failed: .*Specified action requires role: agent.* -> it wants a token: have one of the role 'agent'/,
    );
    assertMatch(about("agent", none), /^agent: skipped: /);

    await Deno.writeTextFile(`${folder}/token`, "secret-1");
    assertMatch(
      about("token", await examine()),
      /^token: failed: DIR\/token holds no refresh_token -> have one issued for an agent, and put/,
    );
    const refused = JSON.stringify({ refresh_token: "secret-2" });
    await Deno.writeTextFile(`${folder}/token`, refused, { mode: 0o600 });
    const second = await examine();
    assertMatch(
      about("token", second),
      /^token: failed: the server refuses that of DIR\/token: .*400.*Invalid refresh token.* -> have one/,
    );
    assertEquals(second.join("\n").includes("secret-2"), false);

    served.sandbox.addRefreshToken("secret-2", { role: "contributor" });
    assertMatch(
      about("role", await examine()),
      /^role: failed: .*requires role: agent.* -> the token has another role: have one of the role 'agent'/,
    );
    await Deno.chmod(`${folder}/token`, 0o644);
    await Deno.writeTextFile(`${folder}/token`, JSON.stringify({ refresh_token: "secret-3" }));
    served.sandbox.addRefreshToken("secret-3");
    const good = await examine();
    assertMatch(
      about("token", good),
      /^token: warning: .*every account .* -> chmod 0600 DIR\/token$/,
    );
    assertEquals(about("role", good), "role: ok: this agent may ask for jobs");
  }));

Deno.test("doctor says that an administrator has set the agent offline, and that another host may have its name", () =>
  withFixture({}, async ({ examine, served }) => {
    served.sandbox.setAgent("rpi4-1", { state: "maintenance", comment: "new switch" });
    const later = { ...systemClock, now: () => Date.now() + 600_000 };
    assertMatch(
      about("agent", await examine({ clock: later })),
      /^agent: warning: the server has 'rpi4-1' as maintenance: new switch -> it takes no jobs until/,
    );
    served.sandbox.setAgent("rpi4-1", { state: "waiting", comment: "" });
    assertMatch(
      about("agent", await examine()),
      /^agent: warning: 'rpi4-1' does not run on this host, and the server has heard of it \d s ago -> does another host/,
    );
  }));

const CONNECTOR = "provision_command: testflinger-device-connector noprovision provision " +
  "-c DIR/device.yaml testflinger.json\n";

Deno.test("doctor looks for programs, an ssh key, the device and its control host", () => {
  const device =
    "device_ip: 127.0.0.1\nssh_port: 1\ncontrol_host: 127.0.0.1\ncontrol_host_port: 1\n";
  return withFixture(
    { agent: CONNECTOR, files: { "device.yaml": device } },
    async ({ examine, folder }) => {
      const ill = await examine({ env: { PATH: "/nonexistent", HOME: folder } });
      assertStringIncludes(
        about("programs", ill),
        "programs: failed: there is no ssh, which noprovision cannot do without -> apt install openssh-client",
      );
      assertStringIncludes(
        about("programs", ill),
        "programs: warning: there is no ssh-import-id, which noprovision needs for reservations with keys of lp: " +
          "or gh: -> apt install ssh-import-id",
      );
      assertMatch(
        about("ssh key", ill),
        /^ssh key: failed: there is none: looked for DIR\/.ssh\/id_ed25519.pub, .* -> as \S+: ssh-keygen/,
      );
      assertMatch(
        about("device", ill),
        /^device: failed: 127.0.0.1 does not answer on port 1: .*refused.* -> is it switched on and booted/i,
      );
      assertMatch(
        about("control host", ill),
        /^control host: failed: 127.0.0.1 does not answer: .* -> restart its service, or the control host/,
      );
      await Deno.mkdir(`${folder}/.ssh`);
      await Deno.writeTextFile(`${folder}/.ssh/id_rsa.pub`, "ssh-rsa x");
      await Deno.writeTextFile(`${folder}/.ssh/id_rsa`, "secret", { mode: 0o644 });
      assertEquals(
        about("ssh key", await examine()),
        "ssh key: failed: DIR/.ssh/id_rsa may be read by others, so ssh does not use it -> chmod 0600 " +
          "DIR/.ssh/id_rsa",
      );
    },
  );
});

Deno.test("doctor finds nothing wrong with a device and a control host that answer", async () => {
  let status = 200;
  const host = Deno.serve(
    { port: 0, hostname: "127.0.0.1", onListen() {} },
    () => new Response("x", { status }),
  );
  const { port } = host.addr;
  const device = `device_ip: 127.0.0.1\nssh_port: ${port}\ncontrol_host: 127.0.0.1\n` +
    `control_host_port: ${port}\n`;
  try {
    await withFixture(
      { agent: CONNECTOR, files: { "device.yaml": device } },
      async ({ examine, folder }) => {
        await Deno.mkdir(`${folder}/.ssh`);
        await Deno.writeTextFile(`${folder}/.ssh/id_ed25519.pub`, "ssh-ed25519 x");
        const lines = await examine();
        assertEquals(about("device", lines), `device: ok: 127.0.0.1 answers on port ${port}`);
        assertEquals(about("control host", lines), "control host: ok: 127.0.0.1 is healthy");
        assertEquals(about("ssh key", lines), "ssh key: ok: DIR/.ssh/id_ed25519.pub");
        status = 503;
        assertMatch(
          about("control host", await examine()),
          /^control host: failed: 127.0.0.1 says that it is not healthy: 503 -> restart its service/,
        );
      },
    );
  } finally {
    await host.shutdown();
  }
});

Deno.test("doctor talks to a control host as connectors do: encrypted, with its certificates and token", async () => {
  await using folder = new TempFolder();
  const made = await certificates(folder.path);
  await using host = Deno.serve(
    { port: 0, hostname: "127.0.0.1", cert: made.good, key: made.key, onListen() {} },
    (request) =>
      new Response("", {
        status: request.headers.get("authorization") === "Bearer t0ken" ? 200 : 401,
      }),
  );
  const base = `control_host: 127.0.0.1\ncontrol_host_port: ${host.addr.port}\n` +
    "control_host_scheme: https\n";
  for (
    const [more, says] of [
      ["", /^control host: failed: 127\.0\.0\.1 does not answer: .*certificate/],
      [`control_host_ca: ${made.authority}\n`, /^control host: failed: .* not healthy: 401 /],
      [
        `control_host_ca: ${made.authority}\ncontrol_host_token: t0ken\n`,
        /^control host: ok: 127\.0\.0\.1 is healthy$/,
      ],
      [
        "control_host_verify_tls: false\ncontrol_host_token: t0ken\n",
        /^control host: warning: The certificate of the control host .* not checked.*\ncontrol host: ok/,
      ],
      ["control_host_ca: /nowhere\n", /^control host: failed: Cannot read 'control_host_ca'/],
    ] as const
  ) {
    await withFixture(
      { agent: CONNECTOR, files: { "device.yaml": base + more } },
      async ({ examine }) => assertMatch(about("control host", await examine()), says),
    );
  }
});

Deno.test("doctor says that a certificate has expired, and that an authority is not known", async () => {
  const folder = await Deno.makeTempDir();
  const made = await certificates(folder);
  /** What doctor, in an environment of its own, says of a server with that certificate. */
  const doctor = async (certificate: string, env: Record<string, string>) => {
    const server = Deno.serve({
      port: 0,
      hostname: "127.0.0.1",
      onListen() {},
      cert: certificate,
      key: made.key,
    }, () => new Response("Testflinger Server v1"));
    try {
      const address = `https://127.0.0.1:${server.addr.port}`;
      const config = AGENT.replaceAll("DIR", folder).replace("http://127.0.0.1:1", address);
      await Deno.writeTextFile(`${folder}/a.conf`, config);
      const { stdout } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "--quiet", ...PERMISSIONS, MAIN, "doctor", "-c", `${folder}/a.conf`],
        env,
      }).output();
      const lines = new TextDecoder().decode(stdout).split("\n");
      return lines.find((line) => / server {2}/.test(line)) ?? "";
    } finally {
      await server.shutdown();
    }
  };
  try {
    assertMatch(
      await doctor(made.good, {}),
      /UnknownIssuer.* -> name the authority's certificate in SSL_CERT_FILE/,
    );
    const trusting = { SSL_CERT_FILE: made.authority };
    assertMatch(await doctor(made.good, trusting), /^ok +server .*Testflinger Server v1$/);
    assertMatch(
      await doctor(made.expired, trusting),
      /expired.* -> have the server's certificate renewed; or this host's clock is wrong/i,
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("doctor says the same to a program, and ends with 1 when something has failed", () =>
  withFiles({ "a.conf": AGENT }, async (folder) => {
    const args = ["-c", `${folder}/a.conf`, "--token-file", `${folder}/token`];
    const { status, stdout } = await run("doctor", "--format", "json", ...args);
    const report = JSON.parse(stdout);
    assertEquals([status, report.agent_id, report.failed > 0], [1, "rpi4-1", true]);
    const text = await run("doctor", ...args);
    assertMatch(text.stdout, /^ok {7}configuration {2}.* is valid$/m);
    assertMatch(text.stdout, /^failed {3}server {9}.* -> /m);
    assertEquals(text.stdout.includes("\x1b"), false);
    const wrong = await run("doctor", "-c", `${folder}/none.conf`);
    assertEquals(wrong.status, 2);
    assertStringIncludes(wrong.stderr, "'testflinger-agent check FILE' tells all about");
  }));

Deno.test("doctor says of several agents only what is not well, each below its name", () =>
  withFiles({ "a.conf": AGENT, "b.conf": AGENT.replace("rpi4-1", "rpi4-2") }, async (folder) => {
    const args = ["-c", `${folder}/a.conf`, "-c", `${folder}/b.conf`];
    const { status, stdout } = await run("doctor", ...args);
    assertEquals(status, 1);
    assertMatch(
      stdout,
      /^rpi4-1\n( {2}(failed|warning) .*\n)+rpi4-2\n( {2}(failed|warning) .*\n)+$/,
    );
    const json = JSON.parse((await run("doctor", "--format", "json", ...args)).stdout);
    assertEquals(json.map(({ agent_id }: { agent_id: string }) => agent_id), ["rpi4-1", "rpi4-2"]);
  }));

Deno.test("doctor warns of a program only where the device's configuration can need it", async () => {
  const programs = (device: string) => {
    let lines = "";
    return withFixture({
      agent: "connector: fake_connector\nconnector_config: DIR/device.yaml\n",
      files: { "device.yaml": device },
    }, async ({ examine, folder }) => {
      lines = about("programs", await examine({ env: { PATH: folder } }));
    }).then(() => lines);
  };
  const plain = await programs("device_ip: 127.0.0.1\n");
  assertEquals(
    [plain.includes("there is no ping"), plain.includes("ilorest")],
    [false, false],
    plain,
  );
  const scripted = await programs("device_ip: 127.0.0.1\ncontrol_host_reboot_script: ['true']\n");
  assertStringIncludes(scripted, "there is no ping");
  assertEquals(scripted.includes("ilorest"), false, scripted);
});
