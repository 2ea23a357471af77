import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { fileURLToPath } from "node:url";
import { emitterOf } from "../../lib/observe/events.ts";
import { createLiveness } from "../../lib/observe/liveness.ts";
import { createSystemd } from "../../lib/observe/systemd.ts";
import { FakeClock, settle } from "../support/fake_clock.ts";
import { recordingLog } from "../support/recording_log.ts";
import { moduleAt, runScript } from "../support/script.ts";

/** Without systemd's own program there is nothing to test; `.ci/run` installs it. */
const ignore = !(await isInstalled("systemd-notify"));

async function isInstalled(program: string): Promise<boolean> {
  try {
    return (await new Deno.Command(program, { args: ["--version"] }).output()).success;
  } catch {
    return false;
  }
}

interface Message {
  pid: number;
  lines: string[];
}

/** A socket as systemd has it, and the messages that came to it. */
async function listen(address: string) {
  const child = new Deno.Command("python3", {
    args: [fileURLToPath(new URL("notify_socket.py", import.meta.url)), address],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const messages: Message[] = [];
  const listening = Promise.withResolvers<void>();
  const reading = (async () => {
    let rest = "";
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const value: unknown = JSON.parse(line);
        if (value === "listening") listening.resolve();
        // The receiver writes nothing else than this shape.
        else messages.push(value as Message);
      }
    }
    listening.reject(new Error("the receiver ended"));
  })();
  await listening.promise;
  return {
    messages,
    async [Symbol.asyncDispose]() {
      await child.stdin.close();
      await reading;
      await child.status;
    },
  };
}

/** The variables as systemd sets them; what has been deleted is gone. */
function environment(variables: Record<string, string>) {
  const map = new Map(Object.entries(variables));
  return { map, get: (name: string) => map.get(name), delete: (name: string) => map.delete(name) };
}

function make(variables: Record<string, string>) {
  const clock = new FakeClock();
  const log = recordingLog();
  const liveness = createLiveness({ clock, silenceLimitMs: 60_000 });
  const env = environment(variables);
  const systemd = createSystemd({ clock, log, trouble: () => liveness.trouble(), env, pid: 4711 });
  const emit = emitterOf("agent-1", { clock, sink: (event) => systemd?.sink(event) });
  return { clock, emit, log, liveness, env, systemd };
}

async function until(condition: () => boolean) {
  for (let n = 0; !condition(); n++) {
    if (n > 10_000) throw new Error("it never happened");
    await settle();
  }
}

async function inFolder(test: (socket: string) => Promise<void>) {
  const folder = await Deno.makeTempDir();
  try {
    await test(`${folder}/notify`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("without systemd nothing is sent", () => {
  assertEquals(make({}).systemd, undefined);
  assertEquals(make({ NOTIFY_SOCKET: "" }).systemd, undefined);
});

Deno.test("the variables are taken out of the environment, so that jobs do not speak for the agent", async () => {
  const { env, systemd } = make({
    NOTIFY_SOCKET: "/nowhere",
    WATCHDOG_USEC: "1000000",
    WATCHDOG_PID: "4711",
    HOME: "/",
  });
  assertEquals([...env.map.keys()], ["HOME"]);
  await systemd?.close();
});

Deno.test("what a job starts does not inherit the way to systemd", async () => {
  const printed = await runScript(
    `import { createSystemd } from ${moduleAt("lib/observe/systemd.ts")};
     import { systemClock } from ${moduleAt("lib/clock.ts")};
     const log = { warning: console.error, error: console.error };
     createSystemd({ clock: systemClock, log, trouble: () => undefined });
     const { stdout } = await new Deno.Command("env").output();
     console.log(new TextDecoder().decode(stdout));
     Deno.exit();`,
    { env: { NOTIFY_SOCKET: "/nowhere", SOMETHING: "else" }, permissions: ["--allow-all"] },
  );
  assertStringIncludes(printed, "SOMETHING=else");
  assertEquals(printed.includes("NOTIFY_SOCKET"), false);
});

Deno.test({
  name: "systemd hears that the agent is ready, what it does, and that it stops",
  ignore,
  fn: () =>
    inFolder(async (socket) => {
      await using receiver = await listen(socket);
      const { emit, systemd, log } = make({ NOTIFY_SOCKET: socket });
      systemd?.ready();
      emit({ type: "mode", state: "waiting", comment: "" });
      await until(() => receiver.messages.length === 1);
      systemd?.ready();
      emit({ type: "job_began", job: "j-1", queue: "q" });
      emit({ type: "mode", state: "test", comment: "" });
      await until(() => receiver.messages.length === 2);
      emit({ type: "job_ended", job: "j", reason: "normal_exit" });
      emit({ type: "mode", state: "offline", comment: "cable\nbroken" });
      await until(() => receiver.messages.length === 3);
      systemd?.stopping();
      await systemd?.close();
      await until(() => receiver.messages.length === 4);
      assertEquals(receiver.messages.map(({ lines }) => lines), [
        ["READY=1", "STATUS=waiting"],
        ["STATUS=job j-1: test"],
        ["STATUS=offline (cable\\nbroken)"],
        ["STATUS=stopping", "STOPPING=1"],
      ]);
      assertEquals(log.lines, []);
    }),
});

Deno.test({
  name: "a service is started for systemd as soon as it recovers a job: its cleanup may take hours",
  ignore,
  fn: () =>
    inFolder(async (socket) => {
      await using receiver = await listen(socket);
      const { emit, systemd } = make({ NOTIFY_SOCKET: socket });
      emit({ type: "recovery_began", job: "j-1" });
      await until(() => receiver.messages.length === 1);
      emit({ type: "recovery_ended", job: "j" });
      systemd?.ready();
      await systemd?.close();
      assertEquals(receiver.messages.map(({ lines }) => lines), [
        ["READY=1", "STATUS=ends job j-1 of an earlier process"],
      ]);
    }),
});

Deno.test({
  name: "an abstract address is reached as well",
  ignore,
  fn: async () => {
    const address = `@testflinger-agent-test-${crypto.randomUUID()}`;
    await using receiver = await listen(address);
    const { systemd } = make({ NOTIFY_SOCKET: address });
    systemd?.ready();
    await systemd?.close();
    await until(() => receiver.messages.length === 1);
    assertEquals(receiver.messages[0]?.lines, ["READY=1"]);
  },
});

Deno.test({
  name: "the watchdog is fed three times a period while the loop turns, and no more once it hangs",
  ignore,
  fn: () =>
    inFolder(async (socket) => {
      await using receiver = await listen(socket);
      const { systemd, clock, liveness, log } = make({
        NOTIFY_SOCKET: socket,
        WATCHDOG_USEC: "30000000",
        WATCHDOG_PID: "4711",
      });
      for (let n = 1; n <= 4; n++) {
        liveness.beat();
        assertEquals(clock.nextDue, 10_000);
        await clock.advance(10_000);
        await until(() => receiver.messages.length === n && clock.sleepers === 1);
      }
      // An outage: each attempt fails, and the loop turns all the same.
      liveness.beat();
      await clock.advance(9_999);
      await settle();
      assertEquals(receiver.messages.length, 4);
      // Now it hangs: the pings that still come are those before the liveness's limit.
      await clock.advance(60_001);
      await until(() => clock.sleepers === 1);
      const before = receiver.messages.length;
      for (let n = 0; n < 5; n++) await clock.advance(10_000);
      await systemd?.close();
      assertEquals(receiver.messages.length, before);
      assertEquals(log.lines.filter(({ message }) => message.includes("hangs")).length, 1);
      assert(receiver.messages.every(({ lines }) => lines.join() === "WATCHDOG=1"));
    }),
});

for (
  const [what, variables] of Object.entries({
    "meant for another process": { WATCHDOG_USEC: "30000000", WATCHDOG_PID: "4712" },
    "that is no number": { WATCHDOG_USEC: "soon" },
    "of no time": { WATCHDOG_USEC: "0" },
    "that is not set": {},
  })
) {
  Deno.test(`a watchdog ${what} is not fed`, async () => {
    const { systemd, clock } = make({ NOTIFY_SOCKET: "/nowhere", ...variables });
    assertEquals(clock.sleepers, 0);
    await systemd?.close();
  });
}

Deno.test("a systemd that does not listen is one warning", async () => {
  const { emit, systemd, log } = make({ NOTIFY_SOCKET: "/nowhere/at/all" });
  for (let n = 0; n < 3; n++) {
    emit({ type: "mode", state: `s${n}`, comment: "" });
    await settle();
  }
  await systemd?.close();
  assertEquals(log.lines.length, 1);
  assertStringIncludes(log.lines[0]?.message ?? "", "NotifyAccess=all");
});
