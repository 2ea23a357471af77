/** `testflinger-agent restart`, `offline` and `online`. */
import { AGENT_OPERANDS, ALL_FLAG, CONFIG_FLAG, WAIT_FLAGS } from "./agents/flags.ts";
import type { Command } from "./command.ts";

/** `testflinger-agent restart`. */
export const restartCommand: Command = {
  name: "restart",
  summary: "Asks agents to restart as soon as no job runs on them.",
  ...AGENT_OPERANDS,
  flags: [CONFIG_FLAG, ALL_FLAG, ...WAIT_FLAGS],
  examples: [
    { line: "testflinger-agent restart rpi4-1", does: "after its job, if one is running" },
    { line: "testflinger-agent restart --all --wait", does: "after an upgrade, until all have" },
    {
      line: "testflinger-agent restart --all --timeout 3600",
      does: "the same, for an hour; exit status 3 when one has not, 1 when one could not be asked",
    },
  ],
  async run(line, io) {
    const { requestRestart, runRequest } = await import("./agents/requests.ts");
    return await runRequest(line, io, { request: requestRestart });
  },
};

/** `testflinger-agent offline`. */
export const offlineCommand: Command = {
  name: "offline",
  summary: "Asks agents to take no more jobs; a running job goes on to its end.",
  ...AGENT_OPERANDS,
  flags: [
    CONFIG_FLAG,
    ALL_FLAG,
    { name: "comment", value: "TEXT", help: "why, for whoever looks at the agent on the server" },
    ...WAIT_FLAGS,
  ],
  examples: [{
    line: "testflinger-agent offline rpi4-1 --comment 'new SD card' --wait",
    does: "come back when the device is free",
  }],
  async run(line, io) {
    const { requestOffline, runRequest } = await import("./agents/requests.ts");
    return await runRequest(line, io, { request: requestOffline });
  },
};

/** `testflinger-agent online`. */
export const onlineCommand: Command = {
  name: "online",
  summary: "Takes back what 'offline' asked for.",
  ...AGENT_OPERANDS,
  flags: [CONFIG_FLAG, ALL_FLAG, ...WAIT_FLAGS],
  examples: [{ line: "testflinger-agent online rpi4-1", does: "let it take jobs again" }],
  async run(line, io) {
    const { requestOnline, runRequest } = await import("./agents/requests.ts");
    return await runRequest(line, io, { request: requestOnline });
  },
};
