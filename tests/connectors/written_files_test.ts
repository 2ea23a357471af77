/** The files that connectors write to devices are what the programs that read them expect. */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { parse } from "yaml";
import { isInstalled } from "../support/sshd.ts";
import { TempFolder } from "../support/temp_folder.ts";

const CONNECTORS = new URL("../../connectors/", import.meta.url).pathname;

/** An answer for the installer: who asks, what, of which kind, and what is said. */
const PRESEED = /^\S+ \S+\/\S+ (string|boolean|select|multiselect|password|note)( \S.*)?$/;

/** Everything that is embedded in the program as text, by its path. */
const FILES = [...textFiles(CONNECTORS)];

function* textFiles(folder: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    if (isDirectory) yield* textFiles(join(folder, name));
    else if (!name.endsWith(".ts")) yield join(folder, name);
  }
}

async function accepts(program: string, ...args: string[]): Promise<void> {
  const { success, stdout, stderr } = await new Deno.Command(program, { args }).output();
  const said = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assert(success, `${program} ${args.join(" ")}: ${said}`);
}

/** GRUB's configurations begin so, and answers for an installer do not. */
const isGrub = (text: string) => /^(menuentry|set|if|search|linux) /m.test(text);

for (const path of FILES) {
  const name = path.slice(CONNECTORS.length);
  const extension = /\.\w+$/.exec(name)?.[0];
  const text = Deno.readTextFileSync(path);
  const [reader, check]: [string, () => void | Promise<void>] = extension === ".sh"
    ? ["shellcheck", async () => {
      await accepts("sh", "-n", path);
      await accepts("shellcheck", path);
    }]
    : extension === ".yaml"
    ? ["", () => assertEquals(typeof parse(text.replaceAll(/@[A-Z_]+@/g, "x")), "object")]
    : extension === ".service"
    ? ["systemd-analyze", () => acceptedUnit(text)]
    : isGrub(text)
    ? ["grub-script-check", () => acceptedGrub(text)]
    : ["", () => {
      for (const line of text.trim().split("\n")) {
        assert(/^#/.test(line) || PRESEED.test(line), line);
      }
    }];
  Deno.test({
    name: `${name} is well formed` + (reader === "" ? "" : `, says ${reader}`),
    ignore: reader !== "" && !isInstalled(reader),
    fn: check,
  });
}

/** A script of /etc/grub.d prints what follows its first two lines. */
async function acceptedGrub(text: string): Promise<void> {
  await using folder = new TempFolder();
  const file = folder.at("grub.cfg");
  await Deno.writeTextFile(file, text.replace(/^#!.*\nexec tail.*\n/, ""));
  await accepts("grub-script-check", file);
}

/** It is for another system, which has what it runs. */
async function acceptedUnit(text: string): Promise<void> {
  await using folder = new TempFolder();
  const file = folder.at("unit.service");
  await Deno.writeTextFile(file, text.replace("/usr/sbin/oem-config-firstboot ", "/bin/true "));
  await accepts("systemd-analyze", "verify", "--man=no", file);
}
