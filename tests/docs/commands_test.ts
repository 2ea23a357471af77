/** What documents tell people to type. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { agentCommand } from "../../lib/cli/run_agent.ts";
import { simpleCommands } from "../../lib/cli/check/phase_commands.ts";
import { parseCommandLine } from "../../lib/cli/main.ts";
import { COMMANDS } from "../../lib/cli/table.ts";
import { startProgram } from "../support/agent_process.ts";
import { freePort } from "../support/free_port.ts";
import { TempFolder } from "../support/temp_folder.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const PATIENCE_MS = 60_000;

/** The documents by their paths. */
async function documents(): Promise<Map<string, string>> {
  const paths = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/monitoring/README.md"];
  for await (const { name } of Deno.readDir(`${ROOT}docs`)) {
    if (name.endsWith(".md")) paths.push(`docs/${name}`);
  }
  return new Map(
    await Promise.all(
      paths.sort().map(async (path) => [path, await Deno.readTextFile(ROOT + path)] as const),
    ),
  );
}

/** The fenced blocks of a language. */
function blocks(text: string, language: string): string[] {
  const fence = new RegExp(`^ *\`\`\`${language}\\n([\\s\\S]*?)^ *\`\`\`$`, "gm");
  return [...text.matchAll(fence)].map(([, block = ""]) => block);
}

/** What stands for something of the reader's, which no shell would take. */
function filledIn(line: string): string {
  return line.replaceAll(/<[a-z_ ]+>/g, "x").replaceAll(/\[[^\]]*\]|\.\.\.$/g, "");
}

Deno.test("every block of shell in a document is shell", async () => {
  for (const [path, text] of await documents()) {
    for (const block of blocks(text, "sh")) {
      const shell = new Deno.Command("/bin/sh", { args: ["-n"], stdin: "piped", stderr: "piped" })
        .spawn();
      const writer = shell.stdin.getWriter();
      await writer.write(new TextEncoder().encode(filledIn(block)));
      await writer.close();
      const { success, stderr } = await shell.output();
      assert(success, `${path}:\n${block}${new TextDecoder().decode(stderr)}`);
    }
  }
});

/** Why the program would not take the command line; undefined when it does. */
function refusal(words: readonly (string | undefined)[]): string | undefined {
  const args = words.map((word) => word ?? "x");
  const [first = ""] = args;
  if (["device-connector", "help", "--help", "--version", "COMMAND"].includes(first)) {
    return undefined;
  }
  const command = COMMANDS.find(({ name }) => name === first);
  if (command === undefined && first !== "" && !first.startsWith("-")) return `no command ${first}`;
  const parsed = parseCommandLine(command ?? agentCommand, command ? args.slice(1) : args);
  return parsed.ok ? undefined : parsed.message;
}

Deno.test("every command line of the program in a document is one that the program takes", async () => {
  const refused: string[] = [];
  let count = 0;
  for (const [path, text] of await documents()) {
    // How to call a command is no call of it; docs/commands.md begins each section with that.
    const shell = blocks(text, "sh").flatMap((block) => block.split("\n"))
      .filter((line) => !/\[options\]|\[\w+\]|[A-Z]{3,}\b.*\.\.\./.test(line));
    const inline = [...text.matchAll(/`((?:sudo )?testflinger-agent [^`\n]+)`/g)]
      .map(([, line = ""]) => line);
    for (const line of [...shell, ...inline]) {
      for (const words of simpleCommands(filledIn(line))) {
        const [program, ...rest] = words[0] === "sudo" ? words.slice(1) : words;
        if (program !== "testflinger-agent") continue;
        count++;
        const why = refusal(rest);
        if (why !== undefined) refused.push(`${path}: ${line}: ${why}`);
      }
    }
  }
  assertEquals(refused, []);
  assert(count > 60, `only ${count} command lines were found`);
});

Deno.test("a command line that no command takes would be found", () => {
  assertEquals(refusal(["status", "--al"]) === undefined, false);
  assertEquals(refusal(["stauts"]), "no command stauts");
  assertEquals(refusal(["status", "--all"]), undefined);
});

Deno.test("every option of install.sh in a document is one of install.sh's", async () => {
  const script = await Deno.readTextFile(`${ROOT}install.sh`);
  for (const [path, text] of await documents()) {
    for (const [line] of text.matchAll(/install\.sh(?: +(?:--?[a-z-]+|[\w./$<>@*-]+))+/g)) {
      for (const [, option = ""] of line.matchAll(/ (--[a-z-]+)/g)) {
        assert(script.includes(option), `${path}: ${line}: install.sh has no ${option}`);
      }
    }
  }
});

Deno.test("the quick start works as it stands there", async () => {
  const text = await Deno.readTextFile(`${ROOT}docs/quick-start.md`);
  const [job = "", config = ""] = blocks(text, "yaml");
  const [tryLine = "", sandboxLine = "", agentLines = "", askLines = ""] = blocks(text, "sh");
  await using temp = new TempFolder();
  const [server, page] = [freePort(), freePort()];
  // Locks are the host's.
  const id = `first-${crypto.randomUUID().slice(0, 8)}`;
  await Deno.writeTextFile(temp.at("job.yaml"), job);
  await Deno.writeTextFile(
    temp.at("testflinger-agent.conf"),
    // Ports that nobody else has; folders that go with the test.
    `${config.replace("5000", `${server}`).replace("first-agent", id)}results_basedir: ${
      temp.at("results")
    }\n` +
      `execution_basedir: ${temp.at("run")}\nlogging_basedir: ${temp.at("logs")}\n` +
      "min_free_space: 0\npolling_interval: 0.5\n",
  );
  const start = (line: string) => {
    const [program, ...args] = line.trim().split(" ");
    assertEquals(program, "testflinger-agent");
    return startProgram(args.map((word) => word === "9100" ? `${page}` : word), {
      cwd: temp.path,
      env: { TESTFLINGER_SERVER: `http://127.0.0.1:${server}` },
    });
  };
  const run = async (line: string) => {
    await using program = start(line);
    return { status: await program.exited, output: program.output() };
  };

  const tried = await run(tryLine);
  assertEquals(tried.status, 0, tried.output);
  assertStringIncludes(tried.output, "Hello from ");
  const [artifacts = ""] = [...Deno.readDirSync(temp.path)].map(({ name }) => name)
    .filter((name) => name.startsWith("artifacts-"));
  assertStringIncludes(await Deno.readTextFile(temp.at(artifacts, "uname.txt")), "Linux");

  await using _sandbox = start(`${sandboxLine.trim()} --port ${server}`);
  const [check = "", agent = ""] = agentLines.trim().split("\n");
  assertEquals((await run(check)).status, 0);
  await using running = start(agent);
  const [submit = "", ...questions] = askLines.trim().split("\n");
  const submitted = await run(submit);
  assertEquals(submitted.status, 0, submitted.output + running.output());
  assertStringIncludes(submitted.output, "Hello from ");
  for (const question of questions) {
    const { status, output } = await run(question);
    assertEquals(status, 0, output);
    assertStringIncludes(output, id);
  }
  const shown = await fetch(`http://127.0.0.1:${page}/`, {
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  assertStringIncludes(await shown.text(), id);
});
