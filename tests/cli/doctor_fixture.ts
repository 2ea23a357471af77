/** Agents and servers for `doctor` to look at. */
import { readAgentRef } from "../../lib/cli/agents/agent_ref.ts";
import { agentUser } from "../../lib/cli/agents/agent_user.ts";
import { diagnose } from "../../lib/cli/doctor/run_doctor.ts";
import type { CheckResult, Examined } from "../../lib/cli/doctor/check_result.ts";
import { systemClock } from "../../lib/clock.ts";
import { type ServedSandbox, type ServeOptions, serveSandbox } from "../../lib/sandbox/serve.ts";
import { AGENT, withFiles } from "./support.ts";

/** An agent that can work, unless a test changes that. */
export interface Fixture {
  folder: string;
  served: ServedSandbox;
  /** What doctor says: `check: result: message -> advice`, by check. */
  examine(changes?: Partial<Examined>): Promise<string[]>;
}

/** Gives a test an agent with its configuration and server, and removes them afterwards. */
export async function withFixture(
  { sandbox, agent = "", files = {} }: {
    sandbox?: ServeOptions;
    /** More lines of the agent's configuration. */
    agent?: string;
    files?: Record<string, string>;
  },
  test: (fixture: Fixture) => Promise<void>,
): Promise<void> {
  const served = serveSandbox(sandbox);
  try {
    const config = AGENT.replace("http://127.0.0.1:1", served.url) + "min_free_space: 0\n" + agent;
    await withFiles({ "a.conf": config, ...files }, async (folder) => {
      const read = await readAgentRef(`${folder}/a.conf`);
      if (!read.ok) throw new Error(read.message);
      const examined: Examined = {
        agent: read.agent,
        user: await agentUser(read.agent),
        tokenFile: `${folder}/token`,
        env: { PATH: Deno.env.get("PATH") ?? "", HOME: folder },
        clock: systemClock,
        sharedFolder: folder,
      };
      await test({
        folder,
        served,
        async examine(changes = {}) {
          const checkResults: CheckResult[] = [];
          await diagnose(
            { ...examined, ...changes },
            (checkResult) => void checkResults.push(checkResult),
          );
          return checkResults.map(({ check, result, message, advice }) =>
            `${check}: ${result}: ${message}${advice === undefined ? "" : ` -> ${advice}`}`
              .replaceAll(folder, "DIR")
          );
        },
      });
    });
  } finally {
    await served.close();
  }
}

/** The lines about one check. */
export function about(check: string, lines: readonly string[]): string {
  return lines.filter((line) => line.startsWith(`${check}: `)).join("\n");
}
