/**
 * A newcomer's walk, from the README to the uninstallation: a root of its own with a real systemd, without the
 * checkout, its caches and a network to download from. There is Node.js for the README's two commands, and the
 * built file for everything else. A real browser watches the page; its pictures are those of docs/quick-start.md.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { VERSION } from "../../lib/version.ts";
import { startBrowser } from "../browser/browser.ts";
import { open, pictureOf, shows } from "../browser/look.ts";
import { ROOT, sharedBuild } from "../packaging/support/built.ts";
import { until } from "../packaging/support/command.ts";
import { copyDownloads } from "../packaging/support/downloads.ts";
import { NEXT_VERSION, writeRelease } from "../packaging/support/release.ts";
import { Systemd, whyNoSystemd } from "../packaging/support/systemd.ts";
import { freePort } from "../support/free_port.ts";

const README = await Deno.readTextFile(join(ROOT, "README.md"));
const QUICK_START = await Deno.readTextFile(join(ROOT, "docs/quick-start.md"));

/** The fenced blocks of a document in a language. */
function blocks(text: string, language: string): string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\`$`, "gm"))]
    .map(([, block = ""]) => block);
}

const HOST = "testflinger-agents.service";
const CONFIGURATIONS = "/etc/testflinger-agent";

/** Prints numbered lines until it may end, so that a line that is missing or there twice is seen. */
const LONG_JOB = `
name: nightly
test_data:
  test_cmds: |
    uname -srm
    n=0
    until [ -e /tmp/go-on ]; do
      n=$((n + 1))
      printf '\\033[32mok\\033[0m    check number %s\\n' $n
      sleep 0.05
    done
    echo "these were $n checks"
`;

/** The home of what the newcomer has downloaded. */
interface Downloads {
  folder: string;
  /** The checkout, with the runtime where npx finds it: it is not downloaded. */
  checkout: string;
  /** What the runtime would download for the demo, and for the tests. */
  demoCache: string;
  testsCache: string;
  release: string;
  nextRelease: string;
}

async function sh(script: string, env: Record<string, string> = {}): Promise<void> {
  const { success, stderr } = await new Deno.Command("sh", { args: ["-euc", script], env })
    .output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
}

async function download(): Promise<Downloads> {
  // Not in /tmp, which is another one below that systemd.
  const folder = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "walk-" });
  await Deno.chmod(folder, 0o755);
  const [checkout = "", demoCache = "", testsCache = "", release = "", nextRelease = ""] =
    await Promise.all(
      ["checkout", "demo", "tests", "release", "next"].map(async (name) => {
        await Deno.mkdir(join(folder, name));
        return join(folder, name);
      }),
    );
  const { dist } = await sharedBuild();
  await copyDownloads("deno.lock", demoCache);
  await copyDownloads("tests/deno.lock", testsCache);
  await sh(
    `cp -a "$DIST"/. "$RELEASE"; cp install.sh "$RELEASE"; cp install.sh "$NEXT"
     cp -a README.md deno.json deno.lock main.ts lib connectors examples tests "$CHECKOUT"
     mkdir -p "$CHECKOUT/node_modules/deno" "$CHECKOUT/node_modules/.bin"
     cp "$RUNTIME" "$CHECKOUT/node_modules/deno/deno"
     ln -s ../deno/deno "$CHECKOUT/node_modules/.bin/deno"
     echo '{"name": "deno", "version": "'"$VERSION"'", "bin": "deno"}' >"$CHECKOUT/node_modules/deno/package.json"`,
    {
      DIST: dist,
      RELEASE: release,
      NEXT: nextRelease,
      CHECKOUT: checkout,
      RUNTIME: Deno.execPath(),
      VERSION: Deno.version.deno,
    },
  );
  await writeRelease(nextRelease, [NEXT_VERSION]);
  return { folder, checkout, demoCache, testsCache, release, nextRelease };
}

/** What is only on the machine of who develops this. */
const HIDE = `
  for folder in /root /home "$0"; do [ ! -d "$folder" ] || mount -t tmpfs tmpfs "$folder"; done
  IFS=:; for folder in $PATH; do rm -f "$folder/deno"; done
  ! command -v deno && command -v npx
`;
const FORGET_NODE =
  'IFS=:; for folder in $PATH; do rm -f "$folder/node" "$folder/npm" "$folder/npx"; done; ! command -v node';

/** All files of the places where a program may leave something. */
async function files(systemd: Systemd): Promise<string[]> {
  const places = ["/etc", "/usr/local", "/opt", "/srv", "/root", "/home", "/var", "/tmp", "/run"];
  const found = await systemd.run("find", ...places, "-xdev");
  return found.stdout.split("\n").filter((path) => !OF_OTHERS.some((other) => other.test(path)));
}

/** What systemd and useradd keep for themselves, and what the newcomer has downloaded. */
const OF_OTHERS = [
  /^\/var\/tmp\/walk-/,
  /^\/var\/(?:log|lib\/systemd)\//,
  /^\/run\/(?!.*testflinger)/,
  /^\/etc\/(?:passwd|group|shadow|gshadow|subuid|subgid)-$/,
  /^\/etc\/\.pwd\.lock$/,
  // A folder of root's, not of the program's.
  /^\/root\/\.cache$/,
];

async function withBrowser(test: (browser: Browser) => Promise<void>): Promise<void> {
  const browser = await startBrowser();
  if (browser === undefined) return;
  try {
    await test(browser);
  } finally {
    await browser.close();
  }
}

const reason = await whyNoSystemd();

Deno.test({
  name:
    "a newcomer tries the README, installs, adds two agents, runs jobs, makes a mistake, upgrades and uninstalls" +
    (reason === undefined ? "" : ` (skipped: ${reason})`),
  ignore: reason !== undefined,
  fn: (t) =>
    withBrowser(async (browser) => {
      const { folder, checkout, demoCache, testsCache, release, nextRelease } = await download();
      try {
        await using systemd = new Systemd();
        await systemd.booted();
        await systemd.sure("sh", "-euc", HIDE, ROOT);
        // What comes after a step that failed would fail, too.
        const step = async (name: string, test: () => Promise<void>) => {
          if (!await t.step(name, test)) throw new Error(`not done: ${name}`);
        };
        const [server, port] = [freePort(), freePort()];
        const address = `http://127.0.0.1:${server}`;
        const page = () => `http://127.0.0.1:${port}`;
        const agent = (...args: string[]) =>
          systemd.run("env", `TESTFLINGER_SERVER=${address}`, "testflinger-agent", ...args);
        const healthz = async () => {
          const answer = await fetch(`${page()}/healthz`);
          return { status: answer.status, text: await answer.text() };
        };

        await step("with only Node.js the README's two commands work", async () => {
          const lines = (blocks(README, "sh")[0] ?? "").trim().split("\n")
            .map((line) => line.replace(/ +#.*/, ""));
          assertEquals(lines.map((line) => line.split(" ")[0]), ["npx", "npx"]);
          const run = async (line: string, cache: string) => {
            const { code, stdout } = await systemd.run(
              ...[
                "env",
                "CI=",
                "HOME=/root",
                "NO_COLOR=1",
                `DENO_DIR=${cache}`,
                "unshare",
                "--net",
              ],
              ...["sh", "-euc", `busybox ip link set lo up; cd "$0"; ${line} 2>&1`, checkout],
            );
            assertEquals(code, 0, stdout);
            return stdout;
          };
          const [demo = "", tests = ""] = lines;
          assertStringIncludes(await run(demo, demoCache), "Greetings from an attachment.\n");
          // All of them is what this is a part of.
          assertMatch(
            await run(`${tests} tests/config/sizes_test.ts`, testsCache),
            /\nok \| 2 passed \| 0 failed/,
          );
        });

        // From here on there is the built file alone.
        await systemd.sure("rm", "-rf", checkout, demoCache, testsCache);
        await systemd.sure("sh", "-euc", FORGET_NODE);
        const before = await files(systemd);

        await step("installed, the program says what comes next", async () => {
          const said = await systemd.sure("sh", join(release, "install.sh"));
          assertStringIncludes(
            said,
            `testflinger-agent ${VERSION} is installed in /usr/local.\nNext:\n`,
          );
          assertMatch(
            (await agent("version")).stdout,
            new RegExp(`^testflinger-agent ${VERSION}\n`),
          );
        });

        const sandbox = await systemd.sure(
          ...[
            "sh",
            "-euc",
            'setsid testflinger-agent sandbox --port "$0" >/dev/null 2>&1 </dev/null & echo $!',
          ],
          `${server}`,
        );

        await step("two agents are two files and one command", async () => {
          const [, configuration = ""] = blocks(QUICK_START, "yaml");
          for (
            const [name, queue] of [["first-agent", "first"], ["second-agent", "second"]] as const
          ) {
            const text = configuration.replace("first-agent", name).replace("[first]", `[${queue}]`)
              .replace("5000", `${server}`);
            await Deno.writeTextFile(
              join(folder, `${name}.conf`),
              `${text}metrics_port: ${port}\npolling_interval: 1\nmin_free_space: 0\n`,
            );
            await systemd.sure("cp", join(folder, `${name}.conf`), CONFIGURATIONS);
          }
          const checked = await agent("check", "--config-dir", CONFIGURATIONS);
          assertEquals(checked.code, 0, checked.stdout + checked.stderr);
          const said = await systemd.sure(
            ...["sh", join(release, "install.sh"), "--config-dir", CONFIGURATIONS],
          );
          assertStringIncludes(said, `Enabled and started: ${HOST}\n`);
          await until("both agents wait for jobs", async () => {
            const { stdout } = await agent("status");
            return /^first-agent +waiting .*\nsecond-agent +waiting /m.test(stdout);
          });
          const examined = await agent("doctor", "--all");
          assertEquals(examined.code, 0, examined.stdout + examined.stderr);
        });

        const watched = await open(browser, page());
        const row = (name: string) => `#agents tr[data-key="${name}"]`;

        await step("a job is submitted, and its log and artifacts come back", async () => {
          const [job = ""] = blocks(QUICK_START, "yaml");
          await Deno.writeTextFile(join(folder, "job.yaml"), job);
          const { code, stdout, stderr } = await agent(
            ...["submit", join(folder, "job.yaml"), "--queue", "first", "--wait"],
          );
          assertEquals(code, 0, stdout + stderr);
          assertStringIncludes(stdout, "Hello from ");
          await shows(watched, row("first-agent"), "passed");
          const listed = await open(browser, address);
          await listed.getByText("complete").first().waitFor();
        });

        await Deno.writeTextFile(join(folder, "long.yaml"), LONG_JOB);
        const submitted = agent(
          ...["submit", join(folder, "long.yaml"), "--queue", "first", "--wait"],
        );

        await step("the page shows the job while it runs, and its log line by line", async () => {
          await shows(watched, `${row("first-agent")}.is-busy`, "nightly");
          await shows(watched, row("second-agent"), "waiting");
          assertEquals(await watched.title(), "1 busy · 2 agents");
          const own = await open(browser, `${page()}/agents/first-agent`);
          await shows(own, "#log .fg2", "ok");
          await shows(own, "#log", "check number 30");
          await shows(own, '.timeline li[aria-current="step"]', "test");
          await picture(own, "quick-start-agent", { width: 1280, height: 800 });
          await own.close();
        });

        await step(
          "a mistake in a configuration is told on the page, by status and by health",
          async () => {
            const broken = `${CONFIGURATIONS}/second-agent.conf`;
            const mistake = /6:19: polling_interval: is the text 'soon', must be a number/;
            await systemd.sure(
              "sed",
              "-i",
              "s/^polling_interval: 1$/polling_interval: soon/",
              broken,
            );
            assertMatch((await agent("reload")).stdout, mistake);
            await shows(watched, ".notice.bad", mistake);
            await shows(
              watched,
              ".notice.bad",
              "second-agent keeps running with the previous configuration",
            );
            assertEquals(await watched.title(), "1 needs a person · 1 busy · 2 agents");
            await picture(watched, "quick-start-host", { width: 1280, height: 260 });
            assertMatch((await agent("status")).stdout, mistake);
            const ill = await healthz();
            assertEquals(ill.status, 503);
            assertMatch(ill.text, mistake);

            await systemd.sure(
              "sed",
              "-i",
              "s/^polling_interval: soon$/polling_interval: 1/",
              broken,
            );
            assertEquals((await agent("reload")).code, 0);
            await watched.locator(".notice.bad").waitFor({ state: "detached" });
            assertEquals((await healthz()).status, 200);
            assertEquals((await agent("status")).stderr, "");
          },
        );

        await step(
          "an upgrade does not disturb the job: not a line of its log is lost",
          async () => {
            const { MainPID: pid } = await systemd.unit(HOST);
            const said = await systemd.sure("sh", join(nextRelease, "install.sh"));
            assertStringIncludes(said, `Reloaded, with jobs going on: ${HOST}`);
            // The page as it was opened.
            await shows(watched, `${row("first-agent")} [data-label="version"]`, NEXT_VERSION);
            await shows(watched, `${row("first-agent")}.is-busy`, "nightly");
            assert((await systemd.unit(HOST)).MainPID !== pid);
            assertMatch(
              (await agent("status")).stdout,
              new RegExp(`^first-agent +test .*${NEXT_VERSION}`, "m"),
            );
            await systemd.sure("touch", "/tmp/go-on");
            const { code, stdout, stderr } = await submitted;
            assertEquals(code, 0, stdout + stderr);
            const numbers = [...stdout.matchAll(/check number (\d+)/g)].map(([, n]) => Number(n));
            assertEquals(numbers, Array.from(numbers, (_, n) => n + 1));
            assertStringIncludes(stdout, `these were ${numbers.length} checks\n`);
            await systemd.sure("rm", "/tmp/go-on");
          },
        );

        await step("uninstalled, nothing is left", async () => {
          const installer = ["sh", join(nextRelease, "install.sh")];
          const refused = await systemd.run(...installer, "--uninstall");
          assertEquals(refused.code, 1);
          assertStringIncludes(refused.stderr, `agents are running: ${HOST}`);
          await systemd.sure(...installer, "--uninstall", "--stop");
          await watched.getByRole("alert").getByText(/^No contact: /).waitFor();
          await systemd.sure("kill", sandbox.trim());
          await systemd.sure(...installer, "--uninstall", "--purge");
          const known = new Set(before);
          assertEquals((await files(systemd)).filter((path) => !known.has(path)), []);
          assertEquals((await systemd.run("pgrep", "-f", "testflinger")).stdout, "");
          assertEquals((await systemd.run("id", "testflinger")).code, 1);
        });
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    }),
});

/** A picture for the quick start. */
async function picture(
  page: Page,
  name: string,
  size: { width: number; height: number },
): Promise<void> {
  const before = page.viewportSize();
  await page.setViewportSize(size);
  await page.screenshot({ path: pictureOf(name) });
  if (before !== null) await page.setViewportSize(before);
}
