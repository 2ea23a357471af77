/** How the commands about running agents are told which agents they are about. */
import { DEFAULT_CONFIG, type Flag } from "../command.ts";

/** What stands on the usage line, and how many of them there may be. */
export const AGENT_OPERANDS = {
  operands: "[AGENT...]",
  positionals: { least: 0, most: Infinity },
} as const;

/** Configurations in place of agents' ids. */
export const CONFIG_FLAGS: readonly Flag[] = [
  {
    name: "config",
    short: "c",
    value: "FILE",
    repeats: true,
    help:
      `the agent's configuration (default: ${DEFAULT_CONFIG}, else agents set up or running here)`,
  },
  {
    name: "config-dir",
    value: "DIR",
    help:
      "the agents of DIR/*.conf and DIR/NAME/testflinger-agent.conf, or the named ones among them",
  },
];

/** Every agent that can be found. */
export const ALL_FLAG: Flag = { name: "all", help: "every agent of this host" };

/** For requests that are carried out later. */
export const WAIT_FLAGS: readonly Flag[] = [
  { name: "wait", help: "wait until it is done, and say each minute what is still missing" },
  {
    name: "timeout",
    value: "SECONDS",
    help: "wait at most this long, then end with exit status 3; the request stays",
  },
];
