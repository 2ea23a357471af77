/** `testflinger-agent version`. */
import { noticesText, versionText } from "../version.ts";
import type { Command } from "./command.ts";

export const versionCommand: Command = {
  name: "version",
  summary: "Says which version this is, and how it was built.",
  positionals: { least: 0, most: 0 },
  flags: [{
    name: "licenses",
    help: "print the licences of the runtime and of the packages inside, too",
  }],
  examples: [
    { line: "testflinger-agent version", does: "version, commit, target, runtime" },
    { line: "testflinger-agent version --licenses", does: "and the licences of what is inside" },
  ],
  async run(line, io) {
    io.stdout(versionText());
    if (line.switches.has("licenses")) io.stdout(`\n${await noticesText()}`);
    return 0;
  },
};
