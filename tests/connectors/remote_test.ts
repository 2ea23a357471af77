/** `remote()`: many commands on one host, mostly against a real OpenSSH server. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { ConnectorContext } from "../../connectors/context.ts";
import { ProvisioningError, Stopped } from "../../connectors/support/errors.ts";
import { succeeded } from "../../connectors/support/process/runner.ts";
import { type Remote, remote } from "../../connectors/support/ssh/remote.ts";
import { output, SSH_TOOLS, SshServer, testWithTools } from "../support/sshd.ts";
import { inStage } from "./support/context.ts";
import { Lab } from "./support/lab.ts";
import { until } from "./support/stubs.ts";

/** A lab whose ssh and scp go to a real server, and are recorded. */
async function labWith(server: SshServer): Promise<Lab> {
  const lab = await Lab.open();
  const [bin = ""] = (server.env.PATH ?? "").split(":");
  for (const program of ["ssh", "scp"]) await lab.fake(program, `exec ${bin}/${program} "$@"`);
  return lab;
}

/** A command that goes on until its file is removed, so that nothing is left on the server. */
const HANG = (server: SshServer) =>
  `touch ${held(server)}; while test -e ${held(server)}; do sleep 0.05; done`;

function held({ root }: SshServer): string {
  return join(root, "held");
}

function onServer<T>(
  { server, lab, signal }: { server: SshServer; lab: Lab; signal?: AbortSignal },
  work: (host: Remote, ctx: ConnectorContext) => Promise<T>,
): Promise<T> {
  const target = { host: "127.0.0.1", user: server.user, port: server.port };
  return inStage(lab, (ctx) => work(remote(ctx, target), ctx), signal);
}

testWithTools("a stage logs in once for all of its commands and files", SSH_TOOLS, async () => {
  await using server = await SshServer.open();
  await using lab = await labWith(server);
  await lab.write("file", "content\n");
  await onServer({ server, lab }, async (host) => {
    for (let i = 0; i < 5; i++) {
      assertEquals(await host.must({ step: "x", program: "sh", command: `echo ${i}` }), `${i}\n`);
    }
    await host.copy({ step: "copy a file", local: "file", remote: `${server.root}/copied` });
    const failed = await host.run("echo out; echo err >&2; exit 3");
    assertEquals(failed, { ended: "exited", status: 3, stdout: "out\n", stderr: "err\n" });
  });
  assertEquals(await Deno.readTextFile(join(server.root, "copied")), "content\n");
  assertEquals(server.logins, 1);
});

testWithTools(
  "the shared connection and its folder are gone when the stage is over",
  SSH_TOOLS,
  async () => {
    await using server = await SshServer.open();
    await using lab = await labWith(server);
    let socket = "";
    await onServer({ server, lab }, async (host) => {
      await host.run("true");
      socket = await controlPath(lab);
      assert((await Deno.stat(socket)).isSocket);
      assertEquals(((await Deno.stat(join(socket, ".."))).mode ?? 0) & 0o777, 0o700);
    });
    await assertRejects(() => Deno.stat(join(socket, "..")), Deno.errors.NotFound);
    await ended(socket);
  },
);

testWithTools(
  "what is put back at the end may still use the shared connection",
  SSH_TOOLS,
  async () => {
    await using server = await SshServer.open();
    await using lab = await labWith(server);
    let socket = "";
    await onServer({ server, lab }, async (host, ctx) => {
      ctx.putBack("a mark", async (own) => {
        const step = { step: "leave a mark", program: "touch" };
        await remote(own, host.target).must({ ...step, command: `touch ${server.root}/mark` });
      });
      await host.run("true");
      socket = await controlPath(lab);
    });
    await Deno.stat(join(server.root, "mark"));
    assertEquals(server.logins, 1);
    await ended(socket);
  },
);

testWithTools(
  "when the shared connection dies, the next command makes another",
  SSH_TOOLS,
  async () => {
    await using server = await SshServer.open();
    await using lab = await labWith(server);
    await onServer({ server, lab }, async (host) => {
      await host.run("true");
      const [pid] = await running(await controlPath(lab));
      Deno.kill(Number(pid), "SIGKILL");
      await ended(await controlPath(lab));
      assert(succeeded(await host.run("true")));
      assert(succeeded(await host.run("true")));
    });
    assertEquals(server.logins, 2);
  },
);

testWithTools(
  "a connection that breaks in the middle of a command is made again, and the command repeated",
  SSH_TOOLS,
  async () => {
    await using server = await SshServer.open();
    await using lab = await labWith(server);
    // Ends the server's end of its own connection, once.
    await server.program(
      "break-once",
      `mkdir ${server.root}/broken 2>/dev/null || exit 0
for pid in $PPID $(ps -o ppid= -p $PPID); do kill -KILL $pid 2>/dev/null; done; sleep 5`,
    );
    await onServer({ server, lab }, async (host) => {
      assert(succeeded(await host.run("break-once && echo done")));
    });
    assertEquals(server.logins, 2);
    assertEquals(lab.clock.paused, [5_000]);
    assertStringIncludes(lab.log.join("\n"), "does not answer (attempt 1 of 13)");
  },
);

testWithTools("disconnect() has the next command log in again", SSH_TOOLS, async () => {
  await using server = await SshServer.open();
  await using lab = await labWith(server);
  await onServer({ server, lab }, async (host) => {
    await host.run("true");
    const socket = await controlPath(lab);
    await host.disconnect();
    await ended(socket);
    await host.disconnect();
    await host.run("true");
  });
  assertEquals(server.logins, 2);
});

testWithTools("a command that hangs does not take the ones after it along", SSH_TOOLS, async () => {
  await using server = await SshServer.open();
  await using lab = await labWith(server);
  // Its limit is reached, once it has begun; then it ends, as it would go on printing otherwise.
  lab.hang = () => existsSync(held(server)) && (Deno.removeSync(held(server)), true);
  await onServer({ server, lab }, async (host) => {
    await host.run("true");
    assertEquals((await host.run(HANG(server), { timeoutMs: 10_000 })).ended, "timeout");
    assert(succeeded(await host.run("true")));
  });
  assertEquals(server.logins, 2);
});

testWithTools(
  "a text reaches its file through standard input, in no argument of any program",
  SSH_TOOLS,
  async () => {
    const secret = 'p\'w; "x" $(touch pwned) \\ ü\n';
    await using server = await SshServer.open({
      forceCommand: 'printf "%s\\n" "$SSH_ORIGINAL_COMMAND" >> {root}/commands\n' +
        'exec sh -c "$SSH_ORIGINAL_COMMAND"',
    });
    await using lab = await labWith(server);
    const path = join(server.root, "it's a secret");
    await onServer({ server, lab }, async (host) => {
      await host.write({ step: "write a secret", path, text: secret });
      assertEquals(((await Deno.stat(path)).mode ?? 0) & 0o777, 0o600);
      await host.write({ step: "write it again", path, text: secret, mode: 0o644 });
    });
    assertEquals(await Deno.readTextFile(path), secret);
    assertEquals(((await Deno.stat(path)).mode ?? 0) & 0o777, 0o644);
    const said = JSON.stringify(await lab.calls()) + lab.log.join("\n") +
      await Deno.readTextFile(join(server.root, "commands"));
    assert(!said.includes("touch pwned"), said);
  },
);

testWithTools(
  "what is typed into a command comes through a shared connection whole, and once",
  SSH_TOOLS,
  async () => {
    await using server = await SshServer.open();
    await using lab = await labWith(server);
    const bytes = crypto.getRandomValues(new Uint8Array(60_000));
    const parts = Array.from({ length: 50 }, () => bytes);
    await onServer({ server, lab }, async (host) => {
      await host.run("true");
      const result = await host.run("sha256sum; cat >/dev/null", {
        input: ReadableStream.from(parts),
      });
      assert(succeeded(result));
      const whole = new Uint8Array(await new Blob(parts).arrayBuffer());
      const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", whole)).toHex();
      const printed = result.ended === "exited" ? result.stdout : result.ended;
      assertEquals(printed.split(" ")[0], sum);
    });
  },
);

testWithTools(
  "a stage that is stopped in the middle leaves no connection behind",
  SSH_TOOLS,
  async () => {
    await using server = await SshServer.open();
    await using lab = await labWith(server);
    const stop = new AbortController();
    await assertRejects(() =>
      onServer({ server, lab, signal: stop.signal }, async (host) => {
        await host.run("true");
        const running = host.run(`touch ${server.root}/begun; exec sleep 60`);
        await until(() => Deno.stat(join(server.root, "begun")).then(() => true, () => false));
        stop.abort(new Stopped("SIGTERM"));
        let waits = 1;
        lab.hang = () => waits-- > 0;
        return await running;
      }), Stopped);
    await ended(await controlPath(lab));
  },
);

Deno.test("a host that never answers is given 13 attempts, 5 s apart; what a command says is final", async () => {
  await using lab = await Lab.open();
  await lab.fake("ssh", 'echo "Connection refused" >&2; exit 255');
  const target = { host: "10.1.1.1", user: "me" };
  const step = { step: "do it", program: "doer", command: "doer" };
  const error = await assertRejects(
    () => inStage(lab, (ctx) => remote(ctx, target, "control host").must(step)),
    ProvisioningError,
  );
  assertStringIncludes(
    error.message,
    "Cannot do it: 'doer' ended with exit status 255: Connection",
  );
  assertEquals((await lab.calls("ssh")).length, 13);
  assertEquals(lab.clock.paused, Array(12).fill(5_000));
  await lab.fake("ssh", "exit 1");
  await assertRejects(() => inStage(lab, (ctx) => remote(ctx, target).must(step)));
  assertEquals((await lab.calls("ssh")).length, 14);
  await lab.fake("ssh", "exit 255");
  const once = { input: ReadableStream.from([new Uint8Array(3)]) };
  await inStage(lab, (ctx) => remote(ctx, target).run("cat", once));
  assertEquals((await lab.calls("ssh")).length, 15);
});

Deno.test("where no socket can be made, every command logs in by itself", async () => {
  await using lab = await Lab.open();
  const deep = join(lab.root, "a-folder-with-a-long-name".repeat(4));
  await Deno.mkdir(deep);
  const target = { host: "10.1.1.1", user: "me" };
  await inStage(lab, (ctx) => remote(ctx, target).run("true"), undefined, { TMPDIR: deep });
  const [call] = await lab.calls("ssh");
  assert(!call?.args.some((arg) => arg.startsWith("Control")), JSON.stringify(call));
  assertEquals([...Deno.readDirSync(deep)], []);
});

/** The socket that the last ssh was told to use. */
async function controlPath(lab: Lab): Promise<string> {
  const option = (await lab.calls("ssh")).flatMap(({ args }) => args)
    .findLast((arg) => arg.startsWith("ControlPath="));
  return option?.slice("ControlPath=".length) ?? "";
}

/** Waits until nobody holds the shared connection of a socket any more. */
function ended(socket: string): Promise<void> {
  return until(async () => (await running(socket)).length === 0);
}

/** Ids of the processes that hold the shared connection of a socket. */
async function running(socket: string): Promise<string[]> {
  assert(socket !== "");
  const all = await output(["ps", "-eo", "pid=,args="]);
  return all.split("\n").filter((line) => line.includes(socket) && line.includes("[mux]"))
    .map((line) => line.trim().split(" ")[0] ?? "");
}
