/** `testflinger-agent version`. */
import { versionText } from "../version.ts";
import type { Command } from "./command.ts";

export const versionCommand: Command = {
  name: "version",
  summary: "Says which version this is, and how it was built.",
  positionals: { least: 0, most: 0 },
  flags: [],
  examples: [{ line: "testflinger-agent version", does: "version, commit, target, runtime" }],
  run(_line, io) {
    io.stdout(versionText());
    return Promise.resolve(0);
  },
};
