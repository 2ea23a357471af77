/** maas2: calls that fail, hang or print rubbish, and what is tried again. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { isRunning } from "../support/processes.ts";
import { Lab } from "./support/lab.ts";
import { maasCalls, maasLab, message } from "./support/maas.ts";
import { until } from "./support/stubs.ts";

async function isAlive(pid: string): Promise<boolean> {
  return await isRunning(Number(pid));
}

/** Ways in which a program can let us down. */
const TROUBLE = {
  missing: { script: undefined, words: "could not be started" },
  hanging: { script: "echo $$ >> pids; hang", words: "was ended after" },
  failing: { script: "echo broken >&2; exit 3", words: "ended with exit status 3: broken" },
} as const;

/** What the calls of a provision need to succeed, by their first two words. */
const STEPS: Readonly<Record<string, string>> = {
  "machine read": "read the machine's status",
  "machines allocate": "allocate the machine",
  "machine deploy": "deploy the machine",
};

/** All programs that hung, as many as there should have been, are gone. */
async function assertNothingRuns(lab: Lab, count: number): Promise<void> {
  const pids = (await lab.read("pids").catch(() => "")).split("\n").filter((pid) => pid !== "");
  assertEquals(pids.length, count);
  for (const pid of pids) assert(!await isAlive(pid), `process ${pid} is still there`);
}

Deno.test("03-maas2 9: a call that fails on the way to MAAS is repeated after 10 and 20 s", async () => {
  await using it = await maasLab({
    on: {
      "machine release": `[ $n -gt 2 ] || { echo "Connection refused" >&2; exit 1; }; echo '{}'`,
    },
  });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  assertEquals(it.clock.paused.slice(0, 3), [10_000, 20_000, 10_000]);
});

Deno.test("a call that fails on the way four times fails, telling of each attempt", async () => {
  await using it = await maasLab({
    on: { "machine release": 'echo "503 Service Unavailable, attempt $n" >&2; exit 2' },
  });
  assertEquals((await it.stage("maas2", "cleanup")).code, 1);
  assertEquals(it.clock.paused, [10_000, 20_000, 40_000]);
  assertStringIncludes(
    await message(it, "cleanup"),
    "Cannot release the machine, after 4 attempts",
  );
  for (const attempt of [1, 2, 3, 4]) {
    assertStringIncludes(await message(it, "cleanup"), `attempt ${attempt}`);
  }
});

Deno.test("whatever says that MAAS cannot be reached, or is starting, is worth another attempt", async () => {
  for (
    const words of [
      "[Errno 111] Connection refused",
      "Connection reset by peer",
      "<urlopen error timed out>",
      "ReadTimeout",
      "HTTP Error 503",
      "<title>502 Bad Gateway</title>",
      "504 Gateway Time-out",
      "Temporary failure in name resolution",
      "No route to host",
    ]
  ) {
    await using it = await maasLab({
      on: { "machine release": `[ $n -gt 1 ] || { echo '${words}'; exit 1; }; echo '{}'` },
    });
    assertEquals((await it.stage("maas2", "cleanup")).code, 0, words);
  }
});

Deno.test("03-maas2 correction 1: a read is repeated whatever it fails with, four attempts in all", async () => {
  for (const words of ["Internal Server Error", "Not Found", "Traceback", ""]) {
    await using it = await maasLab({ on: { "machine read": `echo '${words}' >&2; exit 2` } });
    assertEquals((await it.stage("maas2", "cleanup")).code, 1);
    assertEquals(it.clock.paused, [10_000, 10_000, 20_000, 40_000], words);
    assertStringIncludes(
      await message(it, "cleanup"),
      "Cannot read the machine's status, after 4 attempts",
    );
  }
});

Deno.test("03-maas2 correction 1: one Internal Server Error does not end a deployment", async () => {
  for (const call of ["machine read", "machine release", "machines allocate", "machine deploy"]) {
    await using it = await maasLab({
      on: {
        [call]: `if [ ! -e .failed ]; then touch .failed; echo "Internal Server Error"; exit 2; fi
          count .r; [ $i -gt 1 ] && s=Deployed || s=Ready
          echo "{\\"status_name\\": \\"$s\\", \\"ip_addresses\\": [\\"10.1.1.1\\"]}"`,
      },
    });
    const { code, stderr } = await it.stage("maas2", "provision");
    assertEquals(code, 0, `${call}: ${stderr}`);
    assertStringIncludes(stderr, "trying again in 10 s");
  }
});

Deno.test("03-maas2 correction 1: a change that MAAS refuses for good is not repeated", async () => {
  for (
    const words of [
      "Not Found",
      "HTTP 409: Machine cannot be allocated in its current state",
      "Conflict: an allocation with this name already exists",
      "unrecognised arguments",
      "No available machine matches constraints: status 409",
      "Machine cannot be allocated in its current state",
      '{"distro_series": ["not one of them"]}',
      "Authorization Error: Invalid API key.",
      "usage: maas prof machines",
    ]
  ) {
    await using it = await maasLab({ on: { "machines allocate": `echo '${words}'; exit 2` } });
    assertEquals((await it.stage("maas2", "provision")).code, 1);
    assertStringIncludes(
      await message(it),
      "Cannot allocate the machine: 'maas machines allocate'",
    );
    assertStringIncludes(await message(it), `exit status 2: ${words}`);
    assertEquals(it.clock.paused, [10_000]);
  }
});

Deno.test("03-maas2 correction 1: a change that only conflicts with another call is repeated", async () => {
  for (
    const words of [
      // What MAAS itself says with status 409 and a Retry-After.
      "Conflict error. Try your request again, as it will most likely succeed.",
      "HTTP 409: locked",
      "409 Conflict",
    ]
  ) {
    for (const call of ["machine release", "machines allocate", "machine deploy"]) {
      await using it = await maasLab({
        statuses: ["Ready", "Ready", "Ready", "Deployed"],
        on: { [call]: `[ -e .failed ] || { : > .failed; echo '${words}'; exit 2; }; echo '{}'` },
      });
      const { code, stderr } = await it.stage("maas2", "provision");
      assertEquals(code, 0, `${call}: ${words}: ${stderr}`);
      const calls = (await maasCalls(it)).filter((done) => done.startsWith(call));
      assertEquals(calls.length, 2, `${call}: ${words}`);
    }
  }
});

Deno.test("a deployment whose answer was lost is not asked for again", async () => {
  await using it = await maasLab({
    statuses: ["Ready", "Deploying", "Deploying", "Deployed"],
    on: { "machine deploy": "echo 'Gateway Timeout'; exit 2" },
  });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
  const calls = await maasCalls(it);
  assertEquals(calls.filter((call) => call.startsWith("machine deploy")).length, 1);
});

Deno.test("warnings and banners around the JSON of maas do no harm", async () => {
  await using it = await maasLab({
    on: {
      "machine read": `echo "[notice] {old} client"; echo "deprecated: {}" >&2
        count .r; [ $i -gt 1 ] && s=Deployed || s=Ready
        echo "Success: {\\"status_name\\": \\"$s\\", \\"ip_addresses\\": [\\"10.1.1.1\\"]}"`,
    },
  });
  assertEquals((await it.stage("maas2", "provision")).code, 0);
});

Deno.test("03-maas2 10: a deployment that does not end is given up after timeout_min", async () => {
  await using it = await maasLab({
    config: { timeout_min: 2 },
    statuses: ["Ready", "Deploying"],
    on: { "machine deploy": 'echo \'{"deploy": "answer"}\'' },
  });
  const { code, stderr } = await it.stage("maas2", "provision");
  assertEquals(code, 1);
  assertEquals(it.clock.elapsed, 10_000 + 120_000);
  assertStringIncludes(await message(it), "not ready 2 min after");
  assertStringIncludes(await message(it), "MAAS says 'Deploying'");
  assertStringIncludes(stderr, '{"deploy": "answer"}');
});

Deno.test("the time that an ssh takes which hangs counts for timeout_min", async () => {
  await using it = await maasLab({
    config: { timeout_min: 2 },
    statuses: ["Ready", "Deployed"],
    ssh: "hang",
  });
  assertEquals((await it.stage("maas2", "provision")).code, 1);
  // 15 s + 60 s, 15 s + 60 s: the third look would be beyond.
  assertEquals(it.clock.elapsed, 10_000 + 150_000);
  assertStringIncludes(await message(it), "'ssh' was ended after 60 s");
});

Deno.test("a machine that cannot get deployed any more is not waited for", async () => {
  for (const status of ["Broken", "Failed disk erasing", "Failed testing", "Rescue mode"]) {
    await using it = await maasLab({ statuses: ["Ready", "Deploying", status] });
    assertEquals((await it.stage("maas2", "provision")).code, 1);
    assertStringIncludes(await message(it), `MAAS says '${status}'`);
    assertEquals(it.clock.elapsed, 10_000 + 30_000);
  }
});

Deno.test("a provision that is stopped ends what runs, and starts nothing more", async () => {
  await using it = await maasLab({
    on: { "machine deploy": "echo $$ > pid; : > deploying; hang" },
  });
  const stop = new AbortController();
  const running = it.stage("maas2", "provision", { signal: stop.signal });
  await until(() => it.has("deploying"));
  stop.abort(new Error("enough"));
  assertEquals((await running).code, 1);
  assertEquals((await maasCalls(it)).at(-1)?.split(" ")[1], "deploy");
  assert(!await isAlive(await it.read("pid")));
});

Deno.test("each stage of maas2 says which program let it down, and leaves nothing running", async () => {
  for (const [stage, step] of [["provision", "release"], ["cleanup", "release"]] as const) {
    for (const [kind, { script, words }] of Object.entries(TROUBLE)) {
      await using it = await maasLab();
      if (script === undefined) await it.remove("maas");
      else await it.fake("maas", script);
      assertEquals((await it.stage("maas2", stage)).code, 1, `${stage} ${kind}`);
      const text = await message(it, stage);
      assertStringIncludes(text, `Cannot ${step} the machine`);
      assertStringIncludes(text, `'maas machine release' ${words}`);
      await assertNothingRuns(it, kind === "hanging" ? 4 : 0);
    }
  }
  for (const stage of ["allocate", "reserve", "runtest"]) {
    await using it = await maasLab({
      job: { test_data: { test_cmds: "true" }, reserve_data: { timeout: 1 } },
    });
    await it.remove("maas");
    assertEquals((await it.stage("maas2", stage)).code, 0, stage);
  }
});

Deno.test("each call of maas that hangs or fails is named with its step", async () => {
  for (const [call, step] of Object.entries(STEPS)) {
    for (const kind of ["hanging", "failing"] as const) {
      await using it = await maasLab({ statuses: ["Ready"], on: { [call]: TROUBLE[kind].script } });
      assertEquals((await it.stage("maas2", "provision")).code, 1, `${call} ${kind}`);
      assertStringIncludes(await message(it), `Cannot ${step}`);
      assertStringIncludes(await message(it), `'maas ${call}' ${TROUBLE[kind].words}`);
      await assertNothingRuns(it, kind === "hanging" ? 4 : 0);
    }
  }
});

Deno.test("maas machine read that prints rubbish is named, with what it printed", async () => {
  for (
    const [rubbish, words] of [
      ["echo '<html>sorry</html>'", "printed what is not JSON: <html>sorry</html>"],
      ["true", "printed nothing"],
      ["echo '{\"status_name\": 6}'", "printed an unexpected answer: status_name: "],
      ["printf '\\377\\376{'", "printed what is not JSON: \ufffd\ufffd{"],
    ] as const
  ) {
    await using it = await maasLab({ on: { "machine read": rubbish } });
    assertEquals((await it.stage("maas2", "provision")).code, 1, rubbish);
    assertStringIncludes(
      await message(it),
      `Cannot read the machine's status: 'maas machine read' ${words}`,
    );
  }
});

Deno.test("what provisioning can do without is allowed to hang, to fail and to print rubbish", async () => {
  const optional = [
    ["machine set-storage-layout", "Cannot set the flat storage layout"],
    ["node-script-results read", "Cannot list the machine's installations"],
    ["version read", "Cannot read the version of MAAS"],
  ] as const;
  for (const [call, words] of optional) {
    for (const trouble of [TROUBLE.hanging.script, TROUBLE.failing.script, "echo rubbish"]) {
      await using it = await maasLab({
        job: { provision_data: { ephemeral: true } },
        on: { [call]: trouble },
      });
      const { code, stderr } = await it.stage("maas2", "provision");
      assertEquals(code, 0, `${call}: ${trouble}`);
      // Nobody reads what setting the layout prints.
      const silent = call === "machine set-storage-layout" && trouble === "echo rubbish";
      assertEquals(stderr.includes(`${words}`), !silent, `${call}: ${trouble}`);
      await assertNothingRuns(it, trouble === TROUBLE.hanging.script ? 4 : 0);
    }
  }
});

Deno.test("an ssh that is missing, hangs or fails is named, and never waited for too long", async () => {
  for (const [kind, { script, words }] of Object.entries(TROUBLE)) {
    await using it = await maasLab({
      config: { timeout_min: 3, reset_efi: true },
      statuses: ["Ready", "Deployed"],
    });
    if (script === undefined) await it.remove("ssh");
    else await it.fake("ssh", script);
    assertEquals((await it.stage("maas2", "provision")).code, 1, kind);
    assertStringIncludes(await message(it), `ubuntu@10.1.1.1: 'ssh' ${words}`);
    assert(it.clock.elapsed <= 60_000 + 10_000 + 240_000, kind);
    await assertNothingRuns(it, kind === "hanging" ? 4 : 0);
  }
});
