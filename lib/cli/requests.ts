/** `testflinger-agent restart`, `reload`, `offline` and `online`. */
import { AGENT_OPERANDS, ALL_FLAG, CONFIG_FLAGS, WAIT_FLAGS } from "./agents/flags.ts";
import type { Command } from "./command.ts";

/** `testflinger-agent restart`. */
export const restartCommand: Command = {
  name: "restart",
  summary: "Asks agents to restart as soon as no job runs on them.",
  ...AGENT_OPERANDS,
  flags: [...CONFIG_FLAGS, ALL_FLAG, ...WAIT_FLAGS],
  examples: [
    { line: "testflinger-agent restart rpi4-1", does: "after the running job, if any" },
    { line: "testflinger-agent restart --all --wait", does: "until all have restarted" },
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

/** `testflinger-agent reload`. */
export const reloadCommand: Command = {
  name: "reload",
  summary: "Switches to the installed program and changed configurations now; jobs go on.",
  ...AGENT_OPERANDS,
  flags: [...CONFIG_FLAGS, ALL_FLAG],
  examples: [
    { line: "testflinger-agent reload", does: "all agents of this host, after an upgrade" },
    {
      line: "testflinger-agent reload rpi4-1",
      does: "only the process of this agent; returns when its agents ask for jobs again",
    },
    {
      line: "testflinger-agent reload --config-dir /etc/testflinger-agent",
      does: "configurations that were added, changed or removed there",
    },
  ],
  async run(line, io) {
    const { runReload } = await import("./agents/reload.ts");
    return await runReload(line, io);
  },
};

/** `testflinger-agent offline`. */
export const offlineCommand: Command = {
  name: "offline",
  summary: "Asks agents to take no more jobs; a running job is finished first.",
  ...AGENT_OPERANDS,
  flags: [
    ...CONFIG_FLAGS,
    ALL_FLAG,
    { name: "comment", value: "TEXT", help: "why, for whoever looks at the agent on the server" },
    ...WAIT_FLAGS,
  ],
  examples: [{
    line: "testflinger-agent offline rpi4-1 --comment 'new SD card' --wait",
    does: "wait until the device is free",
  }],
  async run(line, io) {
    const { requestOffline, runRequest } = await import("./agents/requests.ts");
    return await runRequest(line, io, { request: requestOffline });
  },
};

/** `testflinger-agent online`. */
export const onlineCommand: Command = {
  name: "online",
  summary: "Takes back 'offline', and brings back agents that went offline by themselves.",
  ...AGENT_OPERANDS,
  flags: [...CONFIG_FLAGS, ALL_FLAG, ...WAIT_FLAGS],
  examples: [{ line: "testflinger-agent online rpi4-1", does: "let it take jobs again" }],
  async run(line, io) {
    const { requestOnline, runRequest } = await import("./agents/requests.ts");
    return await runRequest(line, io, { request: requestOnline });
  },
};
