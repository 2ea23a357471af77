import { assertEquals } from "@std/assert";
import { CONNECTOR_NAMES, loadConnectors } from "../../connectors/registry.ts";
import { agentCommand } from "../../lib/cli/run_agent.ts";
import { type Command, HELP_FLAG, PROGRAM } from "../../lib/cli/command.ts";
import { completionScript, SHELLS } from "../../lib/cli/completion.ts";
import { manPage } from "../../lib/cli/help.ts";
import { COMMANDS } from "../../lib/cli/table.ts";
import { configReference, keyReferences } from "../../lib/config/config_reference.ts";
import { createMetrics } from "../../lib/observe/metrics.ts";
import { generatedDocs } from "../../tools/docs.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { run } from "./support.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const ALL: readonly Command[] = [agentCommand, ...COMMANDS];

/** Every file below a folder with that ending, as one text. */
function textBelow(folder: string, ending: string): string {
  return [...Deno.readDirSync(folder)].map(({ name, isDirectory }) => {
    if (isDirectory) return textBelow(`${folder}/${name}`, ending);
    return name.endsWith(ending) ? Deno.readTextFileSync(`${folder}/${name}`) : "";
  }).join("\n");
}

/** What is not in `text` of `words`, as whole words. */
function missing(words: readonly string[], text: string): string[] {
  return words.filter((word) =>
    !new RegExp(`(^|[^\\w-])${word.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&")}($|[^\\w-])`, "m")
      .test(text)
  );
}

/** What of `told` is not known, once each. */
function strange(told: readonly string[], known: readonly string[]): string[] {
  return [...new Set(told)].filter((word) => !known.includes(word));
}

/** Of the established command line of device connectors, and of `testflinger-agent` as a whole. */
const CONNECTOR_OPTIONS = ["config", "markdown", "version"];

/** Documents that are written by hand. */
const PROSE = [
  "architecture.md",
  "decisions.md",
  "migrating.md",
  "monitoring/README.md",
  "operations.md",
  "performance.md",
  "quick-start.md",
  "reliability.md",
  "security.md",
  "troubleshooting.md",
];

Deno.test("the generated references are what the code says", async () => {
  for (const [file, text] of Object.entries(await generatedDocs())) {
    assertEquals(
      await Deno.readTextFile(ROOT + file),
      text,
      `${file} is old: run 'deno task docs'`,
    );
  }
});

Deno.test("every command has a help with every option and with an example", async () => {
  for (const command of ALL) {
    // The established command line of device connectors answers for itself.
    if (command.name === "device-connector") continue;
    const words = command.name === "" ? ["--help"] : [command.name, "--help"];
    const { status, stdout } = await run(...words);
    assertEquals(status, 0);
    const options = [...command.flags, HELP_FLAG].flatMap(({ name, short }) => [
      `--${name}`,
      ...short === undefined ? [] : [`-${short}`],
    ]);
    assertEquals(missing(options, stdout), [], `options in '${words.join(" ")}'`);
    assertEquals(command.examples.length > 0, true, `'${command.name}' has no example`);
    for (const { line } of command.examples) assertEquals(stdout.includes(line), true, line);
    const told = [...stdout.matchAll(/^ {2}(?:-\w, )?--([\w-]+)/gm)].map(([, name]) => name ?? "");
    const known = [...command.flags, HELP_FLAG].map(({ name }) => name);
    assertEquals(told.filter((name) => !known.includes(name)), []);
  }
  const { stdout } = await run("--help");
  assertEquals(missing(COMMANDS.map(({ name }) => name), stdout), []);
});

Deno.test("every command and option is in the completions and in the manual page", () => {
  const names = COMMANDS.map(({ name }) => name);
  const options = [
    ...new Set(ALL.filter(({ name }) => name !== "device-connector").flatMap(({ flags }) => flags)),
  ].map(({ name }) => name);
  for (const shell of SHELLS) {
    const script = completionScript(shell, { commands: COMMANDS, bare: agentCommand });
    assertEquals(missing(names, script), [], shell);
    const spelled = options.map((name) => shell === "fish" ? `-l ${name}` : `--${name}`);
    assertEquals(missing(spelled, script), [], shell);
    assertEquals(missing(CONNECTOR_NAMES, script), [], shell);
    const spelledOut = shell === "fish" ? / -l ([\w-]+)/g : /--([a-z][\w-]+)/g;
    const told = [...script.matchAll(spelledOut)].map(([, name]) => name ?? "");
    assertEquals(told.length > options.length, true, shell);
    assertEquals(strange(told, [...options, ...CONNECTOR_OPTIONS, HELP_FLAG.name]), [], shell);
  }
  const page = manPage(COMMANDS, agentCommand).replaceAll("\\-", "-").replaceAll(/\\f[BR]/g, " ");
  assertEquals(missing(names, page), []);
  assertEquals(missing(options.map((name) => `--${name}`), page), []);
  const told = [...page.matchAll(/(?<![\w-])--([a-z][\w-]+)/g)].map(([, name]) => name ?? "");
  assertEquals(strange(told, [...options, ...CONNECTOR_OPTIONS, HELP_FLAG.name]), []);
  const chapters = [...page.matchAll(/^\.SS (\S+)$/gm)].map(([, name]) => name ?? "");
  assertEquals(strange(chapters, names), []);
});

Deno.test("every command, option and configuration key is used in a test", () => {
  const tests = textBelow(`${ROOT}tests`, ".ts");
  const options = new Set(ALL.flatMap(({ flags }) => flags).map(({ name }) => `--${name}`));
  assertEquals(missing([...options], tests), []);
  assertEquals(missing(configReference().map(({ key }) => key), tests), []);
  // As the first argument of a call: `run("status", ...)`, `startProgram(["try", ...`.
  // tests/connectors/ calls `device-connector` by its function: its command line is another one.
  const commands = COMMANDS.filter(({ name }) => name !== "device-connector")
    .map(({ name }) => `("${name}"`);
  const called = tests.replaceAll(/\(\s*\[?\s*(?=")/g, "(");
  assertEquals(commands.filter((call) => !called.includes(call)), []);
});

Deno.test("every option is in the documentation of its command, and every key in that of the agent", () => {
  const docs = Deno.readTextFileSync(`${ROOT}docs/commands.md`);
  const chapters = new Map(
    docs.split(/^## /m).slice(1).map((text) => [text.split("\n")[0]?.replaceAll("`", ""), text]),
  );
  for (const { name, flags } of ALL) {
    if (name === "device-connector") continue;
    const chapter = chapters.get(name === "" ? "The agent itself" : name) ?? "";
    assertEquals(missing(flags.map((flag) => `--${flag.name}`), chapter), [], name);
    const told = [...chapter.matchAll(/^\| `(?:-\w, )?--([\w-]+)/gm)].map(([, flag]) => flag ?? "");
    assertEquals(strange(told, [...flags, HELP_FLAG].map((flag) => flag.name)), [], name);
  }
  const keys = configReference().map(({ key }) => key);
  const page = Deno.readTextFileSync(`${ROOT}docs/configuration.md`);
  const agent = page.slice(page.indexOf("## The agent\n"), page.indexOf("## Environment\n"));
  const told = [...agent.matchAll(/^\| `(\w+)`/gm)].map(([, key]) => key ?? "");
  assertEquals(told.toSorted(), keys.toSorted());
});

Deno.test("what is in code in the documentation and looks like a key is one, of ours or of a job", async () => {
  const connectors = await loadConnectors();
  const known = [
    ...configReference(),
    ...connectors.flatMap((one) => [
      ...keyReferences(one.configShape),
      ...keyReferences(one.provisionShape),
    ]),
  ].map(({ key }) => key);
  const metrics = await createMetrics({ version: "1", clock: new FakeClock() });
  metrics.add("a", "", "");
  const served = [...(await metrics.text()).matchAll(/^# TYPE (\w+) /gm)].map(([, name]) =>
    name ?? ""
  );
  // Of jobs and their results, of Prometheus' configuration, labels of metrics, and of lines of the log.
  const others = [
    ...["job_state", "test_cmds", "test_username", "test_password", "ignore_failure", "alloc_pct"],
    ...["allocation_timeout"],
    ...["test_exception_info", "rule_files", "agent_id", "test_phase"],
    ...["memory_peak", "cpu_seconds"],
  ];
  const docs = ["README.md", ...PROSE.map((name) => `docs/${name}`)]
    .map((file) => Deno.readTextFileSync(ROOT + file)).join("\n");
  const told = [...docs.matchAll(/`([a-z][a-z0-9]*(?:_[a-z0-9]+)+)`/g)].map(([, key]) => key ?? "");
  assertEquals(told.length > 30, true, `only ${told.length}`);
  const names = connectors.map(({ name }) => name);
  assertEquals(strange(told, [...known, ...served, ...others, ...names]), []);
  // An example of a configuration is one that the agent takes.
  for (const [, yaml] of docs.matchAll(/^```yaml\n([^]*?)^```$/gm)) {
    if (!yaml?.includes("agent_id:")) continue;
    const written = [...yaml.matchAll(/^(\w+):/gm)].map(([, key]) => key ?? "");
    assertEquals(strange(written, configReference().map(({ key }) => key)), []);
  }
});

Deno.test("what is looked for can fail: a word that is lacking, and one too many, are found", () => {
  assertEquals(missing(["--wait", "--timeout"], "--wait, --timeout-more"), ["--timeout"]);
  assertEquals(missing(["job_queues"], "my_job_queues"), ["job_queues"]);
  assertEquals(strange(["wait", "wiat", "wiat"], ["wait"]), ["wiat"]);
});

Deno.test("the documentation names only commands, options and keys that there are", () => {
  const docs = textBelow(`${ROOT}docs`, ".md") + Deno.readTextFileSync(`${ROOT}README.md`);
  // In code only: prose may say "a testflinger-agent is ...".
  const calls = [...docs.matchAll(/[`\n$ ]testflinger-agent ([^`\n]*)/g)].map(([, rest]) =>
    rest ?? ""
  );
  const names = new Set(COMMANDS.map(({ name }) => name));
  const wrong: string[] = [];
  for (const call of calls) {
    const [first = ""] = call.split(" ");
    const command = COMMANDS.find(({ name }) => name === first) ?? agentCommand;
    if (command.name === "device-connector") continue;
    for (const [, option] of call.split(/[#|;&]/)[0]?.matchAll(/(?<=^| )--([a-z_-]+)/g) ?? []) {
      const known = [...command.flags, HELP_FLAG, { name: "version" }].flatMap((flag) => [
        flag.name,
        ..."aliases" in flag ? flag.aliases ?? [] : [],
      ]);
      if (option !== undefined && !known.includes(option)) wrong.push(`${first} --${option}`);
    }
  }
  const inCode = [...docs.matchAll(/`testflinger-agent ([a-z-]+)[^`]*`/g)].map(([, name]) =>
    name ?? ""
  );
  wrong.push(...inCode.filter((name) => !name.startsWith("-") && !names.has(name)));
  assertEquals(wrong, []);
});

Deno.test("unknown commands and options get a suggestion and exit status 2", async () => {
  const command = await run("statsu");
  assertEquals([command.status, command.stderr.split("\n")[0]], [
    2,
    `${PROGRAM}: unknown command 'statsu'. Did you mean 'status'?`,
  ]);
  const option = await run("check", "--strcit");
  assertEquals([option.status, option.stderr.split("\n")[1]], [
    2,
    `${PROGRAM}: unknown option --strcit; did you mean --strict?`,
  ]);
  const shell = await run("completion", "bsh");
  assertEquals([shell.status, shell.stderr], [
    2,
    "there is no completion for 'bsh'; did you mean 'bash'?\n",
  ]);
});
