import { assertEquals } from "@std/assert";
import { type SHELLS } from "../../lib/cli/completion.ts";
import { run, withFiles } from "./support.ts";

/** Runs a script in a shell; undefined where there is no such shell here, which CI does not allow. */
async function inShell(shell: string, args: string[], cwd: string): Promise<string | undefined> {
  try {
    const { success, stdout, stderr } = await new Deno.Command(shell, {
      args,
      cwd,
      stdin: "null",
      env: { HOME: cwd },
    }).output();
    const complaints = new TextDecoder().decode(stderr);
    if (!success || complaints !== "") throw new Error(`${shell}: ${complaints}`);
    return new TextDecoder().decode(stdout);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound) || Deno.env.get("CI") === "true") throw error;
    console.warn(`skipped: there is no ${shell} here`);
    return undefined;
  }
}

/** What the shell offers for a line that is being typed, sorted. */
async function offers(shell: typeof SHELLS[number], line: string, cwd: string) {
  const { stdout } = await run("completion", shell);
  await Deno.writeTextFile(`${cwd}/script`, stdout);
  const words = line.split(" ");
  const text = shell === "bash"
    ? await inShell("bash", [
      "--norc",
      "-c",
      'source ./script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _testflinger_agent; ' +
      'printf "%s\\n" "${COMPREPLY[@]}"',
      "bash",
      ...words,
    ], cwd)
    : await inShell("fish", ["--no-config", "-c", `source ./script; complete -C '${line}'`], cwd);
  return text?.trim().split("\n").map((one) => one.split("\t")[0] ?? "").filter((one) => one !== "")
    .toSorted();
}

for (const shell of ["bash", "fish"] as const) {
  Deno.test(`${shell} completes commands, options, their values, connectors and files`, () =>
    withFiles({ "rpi4.conf": "", "job.yaml": "" }, async (cwd) => {
      const is = async (line: string, expected: string[]) => {
        const offered = await offers(shell, `testflinger-agent ${line}`, cwd);
        if (offered !== undefined) assertEquals(offered, expected, line);
      };
      await is("sta", ["status"]);
      await is("check --str", ["--strict"]);
      await is("check --format ", ["json", "text"]);
      await is("check --connector mu", ["multi", "muxpi"]);
      await is("completion z", ["zsh"]);
      await is("device-connector mux", ["muxpi"]);
      await is("doctor -c rpi", ["rpi4.conf"]);
      await is("try jo", ["job.yaml"]);
      await is("--tok", ["--token-file"]);
      await is("logs --fo", ["--follow"]);
      const id = `op-complete-${crypto.randomUUID().slice(0, 8)}`;
      const lock = `/tmp/testflinger-agent-${id}.lock`;
      await Deno.writeTextFile(lock, "");
      try {
        for (const command of ["status", "logs", "restart", "doctor"]) {
          await is(`${command} ${id.slice(0, -2)}`, [id]);
        }
      } finally {
        await Deno.remove(lock);
      }
    }));
}

Deno.test("zsh takes its completion script, and offers commands and options", () =>
  withFiles({}, async (cwd) => {
    const { stdout } = await run("completion", "zsh");
    await Deno.writeTextFile(`${cwd}/_testflinger-agent`, stdout);
    // Completion needs a terminal of its own, which zsh's zpty module makes.
    await Deno.writeTextFile(
      `${cwd}/try.zsh`,
      `zmodload zsh/zpty
zpty z zsh -f -i
drain() { local chunk; while zpty -r -m z chunk "*$1*"; do print -r -- "$chunk"; break; done }
zpty -w z "PS1=; fpath=($PWD \\$fpath); autoload -U compinit; compinit -u -D; LISTMAX=0; echo rea''dy"
drain ready
zpty -w -n z $'testflinger-agent sta\\t'
drain 'status'
zpty -w -n z $'\\x15testflinger-agent check --str\\t'
drain '--strict'
zpty -d z
`,
    );
    const text = await inShell("zsh", ["-f", "./try.zsh"], cwd);
    if (text !== undefined) {
      assertEquals([text.includes("status"), text.includes("--strict")], [true, true], text);
    }
  }));

Deno.test("help --man prints a manual page with which groff finds nothing wrong", () =>
  withFiles({}, async (cwd) => {
    const { status, stdout } = await run("help", "--man");
    assertEquals(status, 0);
    await Deno.writeTextFile(`${cwd}/page.1`, stdout);
    const text = await inShell("groff", ["-man", "-ww", "-Tutf8", "page.1"], cwd);
    if (text !== undefined) assertEquals(text.length > 1000, true);
  }));
