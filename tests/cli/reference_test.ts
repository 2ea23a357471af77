import { assertEquals } from "@std/assert";
import { CONNECTORS } from "../../connectors/registry.ts";
import { agentCommand } from "../../lib/cli/agent_command.ts";
import { type Command, HELP_FLAG, PROGRAM } from "../../lib/cli/command.ts";
import { SHELLS } from "../../lib/cli/completion.ts";
import { completionScript } from "../../lib/cli/completion_script.ts";
import { manPage } from "../../lib/cli/man_page.ts";
import { COMMANDS } from "../../lib/cli/table.ts";
import { configReference } from "../../lib/config/config_reference.ts";
import { generatedDocs } from "../../tools/docs.ts";
import { run } from "./support.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
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

Deno.test("docs/configuration.md and docs/commands.md are what the code says", async () => {
  for (const [file, text] of Object.entries(generatedDocs())) {
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
    const script = completionScript(shell);
    assertEquals(missing(names, script), [], shell);
    const spelled = options.map((name) => shell === "fish" ? `-l ${name}` : `--${name}`);
    assertEquals(missing(spelled, script), [], shell);
    assertEquals(missing([...CONNECTORS.keys()], script), [], shell);
  }
  const page = manPage().replaceAll("\\-", "-").replaceAll(/\\f[BR]/g, " ");
  assertEquals(missing(names, page), []);
  assertEquals(missing(options.map((name) => `--${name}`), page), []);
});

Deno.test("every option and configuration key is used in a test", () => {
  const tests = textBelow(`${ROOT}tests`, ".ts");
  const options = new Set(ALL.flatMap(({ flags }) => flags).map(({ name }) => `--${name}`));
  assertEquals(missing([...options], tests), []);
  assertEquals(missing(configReference().map(({ key }) => key), tests), []);
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
