/** What `doctor` says of one thing. */
import type { Clock } from "../../clock.ts";
import type { ConfiguredAgent } from "../agents/agent_ref.ts";
import type { AgentUser } from "../agents/agent_user.ts";

/** The outcome of one check. */
export interface CheckResult {
  /** Short and fixed: for programs, and for the eye. */
  check: string;
  /** `warning`: it works, but not for long or not always. `skipped`: it could not be looked at. */
  result: "ok" | "warning" | "failed" | "skipped";
  /** What was found. One line. */
  message: string;
  /** What to do about it. One line; where the result is `warning` or `failed`. */
  advice?: string;
}

/** What the checks look at, and with. */
export interface Examined {
  agent: ConfiguredAgent;
  /** As whom it runs, or would. */
  user: AgentUser;
  tokenFile: string;
  env: Readonly<Record<string, string>>;
  clock: Clock;
  /** Where markers and locks are: `/tmp`. */
  sharedFolder: string;
}

/** One check; it changes nothing. */
export type Check = (examined: Examined) => Promise<CheckResult[]>;

/** All is well. */
export function ok(check: string, message: string): CheckResult {
  return { check, result: "ok", message };
}

/** It works, but. */
export function warning(check: string, message: string, advice: string): CheckResult {
  return { check, result: "warning", message, advice };
}

/** It does not work. */
export function failed(check: string, message: string, advice: string): CheckResult {
  return { check, result: "failed", message, advice };
}

/** It could not be looked at, because of something else. */
export function skipped(check: string, message: string): CheckResult {
  return { check, result: "skipped", message };
}
