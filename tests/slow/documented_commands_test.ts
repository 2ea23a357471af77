/**
 * What the documents tell people to type is typed here, line by line, as it stands there: in a root of its own
 * with a real systemd, on the built file that install.sh has installed.
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { VERSION } from "../../lib/version.ts";
import { ROOT, sharedBuild } from "../packaging/support/built.ts";
import { until } from "../packaging/support/command.ts";
import { NEXT_VERSION, writeRelease } from "../packaging/support/release.ts";
import { Systemd, whyNoSystemd } from "../packaging/support/systemd.ts";
import { freePort } from "../support/free_port.ts";

/** In this order; docs/operations.md begins before the others, and ends after them. */
const OTHERS = [
  "README.md",
  "docs/troubleshooting.md",
  "docs/commands.md",
  "docs/performance.md",
];

/** Whose commands have a test of their own: contributing_test.ts and commands_test.ts. */
const ELSEWHERE = ["CONTRIBUTING.md", "docs/quick-start.md"];

/** What is not run here, and why. */
const NOT_RUN: readonly (readonly [RegExp, string])[] = [
  [/^npx /, "the newcomer's walk does"],
  [
    /^deno task build |^git checkout .*<commit>|^sha256sum dist/,
    "build_test.ts builds",
  ],
  [/^deno task bench/, "it takes half an hour"],
  [
    / device-connector muxpi provision /,
    "there is no device; muxpi_job_test.ts does",
  ],
  [
    / \| man -l -$/,
    "there may be no man; reference_test.ts renders the manual",
  ],
  [/^from=\$\(/, "systemd_host_test.ts moves agents with it, a job running"],
  [
    / install\.sh --config-dir | install\.sh --per-agent/,
    "systemd_host_test.ts does, a job running",
  ],
];

/** What runs until it is told to end: it is, as soon as it has printed something. */
const GOES_ON = /^testflinger-agent (?:-c \S+|run .*|sandbox.*|logs .*-f.*)$/;

/** Fenced commands of a document, without what is said about them. A block with a loop is one command. */
async function commandsOf(path: string): Promise<string[]> {
  const text = await Deno.readTextFile(join(ROOT, path));
  return [...text.matchAll(/^```sh\n([^]*?)^```$/gm)].flatMap(
    ([, block = ""]) => {
      const lines = block.replaceAll(/(?:^|(?<= )) *#.*$/gm, "").split("\n")
        .map((line) => line.trimEnd()).filter((line) => line !== "");
      return /^(?:for | +\S)/m.test(block) ? [lines.join("\n")] : lines;
    },
  );
}

async function copy(...paths: string[]): Promise<void> {
  const { success } = await new Deno.Command("cp", { args: ["-a", ...paths] })
    .output();
  assert(success);
}

/** Each agent with folders of its own below `state`. */
const configuration = (id: string, server: string, state: string) =>
  `agent_id: ${id}\nserver_address: ${server}\njob_queues: [${id}]\n` +
  "connector: fake_connector\npolling_interval: 1\nmin_free_space: 0\n" +
  ["execution", "logging", "results"]
    .map((kind) => `${kind}_basedir: ${state}/${id}/${kind}\n`).join("");

/** The names that the documents have for an agent that runs. */
const INSTALLED = ["rpi4-01", "rpi4-1"];

const JOB =
  "job_queue: rpi4-1\ntest_data:\n  test_cmds: mkdir artifacts; echo done > artifacts/x\n";

Deno.test("no document with commands is forgotten", async () => {
  const known = [...OTHERS, ...ELSEWHERE, "docs/operations.md"];
  for (const folder of ["", "docs/", "docs/monitoring/"]) {
    for await (const { name } of Deno.readDir(join(ROOT, folder))) {
      if (!name.endsWith(".md") || known.includes(folder + name)) continue;
      assertEquals(await commandsOf(folder + name), [], folder + name);
    }
  }
});

const reason = await whyNoSystemd();

Deno.test({
  name: "every command of the documents works as it stands there" +
    (reason === undefined ? "" : ` (skipped: ${reason})`),
  ignore: reason !== undefined,
  fn: async () => {
    // Not in /tmp, which is another one below that systemd.
    const folder = await Deno.makeTempDir({
      dir: "/var/tmp",
      prefix: "documented-",
    });
    try {
      await Deno.chmod(folder, 0o755);
      const { dist } = await sharedBuild();
      await using systemd = new Systemd();
      await systemd.booted();
      const port = freePort();
      const server = `http://127.0.0.1:${port}`;
      const files: Record<string, string> = {
        "job.yaml": JOB,
        "device.yaml": "agent_name: rpi4-1\ndevice_ip: 127.0.0.1\ncontrol_host: 127.0.0.1\n",
        "testflinger.json": "{}",
      };
      const home = "/var/lib/testflinger-agent";
      for (const id of ["rpi4", "a", "b"]) {
        files[`${id}.conf`] = configuration(id, server, folder);
      }
      for (const id of INSTALLED) {
        files[`${id}.conf`] = configuration(id, server, home);
      }
      for (const [name, text] of Object.entries(files)) {
        await Deno.writeTextFile(join(folder, name), text);
      }
      await Deno.mkdir(join(folder, "next"));
      await copy(`${dist}/.`, join(ROOT, "install.sh"), folder);
      await writeRelease(join(folder, "next"), [NEXT_VERSION]);
      const run = (line: string) =>
        systemd.run(
          ...["env", "HOME=/root", `TESTFLINGER_SERVER=${server}`, "sh", "-c"],
          ...[`cd "$0" && { ${line}\n} 2>&1`, folder],
        );
      const sure = async (line: string) => {
        const { code, stdout } = await run(line);
        assertEquals(code, 0, `${line}:\n${stdout}`);
        return stdout.trim();
      };
      await sure(
        `mkdir -p /where/the/files /where/the/new/files ~/.zfunc ~/.config/fish/completions
         mkdir /etc/bash_completion.d 2>/dev/null || true
         ln -s "$PWD" /where/the/files/are; ln -s "$PWD/next" /where/the/new/files/are`,
      );

      const allWait = () =>
        until("the agents wait for jobs", async () => {
          const { stdout } = await run("testflinger-agent status");
          return /^rpi4-1 +waiting /m.test(stdout) && /^rpi4-01 +waiting /m.test(stdout);
        });
      const RESTART = "testflinger-agent restart rpi4-1";
      /** The service's own id for each start of it. */
      const start = () => sure("systemctl show -P InvocationID testflinger-agent@rpi4-1");
      const failed: string[] = [];
      const ids = { finished: "", waiting: "" };
      /** Types a line of a document; what is not this machine's is replaced by what is. */
      const type = async (line: string) => {
        const id = line.includes(" cancel ") ? ids.waiting : ids.finished;
        const filled = line.replace(/\b4b1e7c0e-\S+/, id)
          .replace("https://testflinger.example.com", server)
          .replaceAll("1.2.3", VERSION)
          .replace(/\bFILE\b/, "rpi4.conf").replace(/\bAGENT\b/, "rpi4-1");
        const before = line === RESTART ? await start() : "";
        const { code, stdout } = await run(
          GOES_ON.test(line)
            // The sandbox's port may be taken outside.
            ? `unshare --net sh -c 'busybox ip link set lo up; exec ${filled}' >said 2>&1 & pid=$!
               until [ -s said ] || ! kill -0 $pid; do sleep 0.02; done
               kill -TERM $pid; wait $pid; status=$?; cat said; [ $status = 0 ] || [ $status = 143 ]`
            : filled,
        );
        if (code !== 0) failed.push(`${line}: status ${code}\n${stdout}`);
        // Who types more slowly finds the agent running again.
        if (line === RESTART) {
          await until("it is another process", async () => await start() !== before);
          await allWait();
        }
      };
      const operations = await commandsOf("docs/operations.md");
      const typed: string[] = [];
      const skipped: string[] = [];
      const typeAll = async (lines: readonly string[]) => {
        for (const line of lines) {
          if (NOT_RUN.some(([pattern]) => pattern.test(line))) {
            skipped.push(line);
          } else {
            typed.push(line);
            await type(line);
          }
        }
      };

      const upgrade = operations.findIndex((line) => line.includes("/new/"));
      assert(upgrade > 0);
      await typeAll(operations.slice(0, upgrade));
      await sure(
        `setsid testflinger-agent sandbox --port ${port} >/dev/null 2>&1 </dev/null &`,
      );
      await sure(
        `sh install.sh --agent rpi4-1 --config rpi4-1.conf && systemctl enable --now testflinger-agent@rpi4-1`,
      );
      await allWait();
      ids.finished = await sure(
        "testflinger-agent submit job.yaml --wait 2>&1 | grep -oEm1 '[0-9a-f-]{36}'",
      );
      ids.waiting = await sure(
        "testflinger-agent submit job.yaml --queue nobody 2>&1 | grep -oE '[0-9a-f-]{36}'",
      );
      for (const path of OTHERS) await typeAll(await commandsOf(path));
      await typeAll(
        operations.slice(upgrade).filter((line) => !line.includes("--uninstall")),
      );
      await typeAll(
        operations.slice(upgrade).filter((line) => line.includes("--uninstall")),
      );

      assertEquals(failed, [], failed.join("\n"));
      assert(typed.length > 50, `only ${typed.length} commands were found`);
      for (const [pattern, why] of NOT_RUN) {
        assert(
          skipped.some((line) => pattern.test(line)),
          `nothing is left out because ${why}`,
        );
      }
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
