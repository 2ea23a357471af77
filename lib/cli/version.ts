/** `testflinger-agent version`. */
import { noticesText, versionText } from "../version.ts";
import type { Command } from "./command.ts";

export const versionCommand: Command = {
  name: "version",
  summary: "Shows the version and how it was built.",
  positionals: { least: 0, most: 0 },
  flags: [{
    name: "licenses",
    help: "also print the licences of the runtime and of the included packages",
  }],
  examples: [
    { line: "testflinger-agent version", does: "version, commit, target, runtime" },
    {
      line: "testflinger-agent version --licenses",
      does: "also the licences of the included packages",
    },
  ],
  async run(line, io) {
    io.stdout(versionText());
    if (line.switches.has("licenses")) io.stdout(`\n${await noticesText()}`);
    return 0;
  },
};
