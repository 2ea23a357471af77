/** How long a phase may take, and how long it may be silent. */
import type { Clock } from "../clock.ts";
import type { AgentConfig } from "../config/agent_config.ts";
import type { Phase } from "../phases.ts";
import { isEndReason } from "./job_context.ts";
import type { Job } from "./job.ts";

/**
 * systemd gives 90 s from SIGTERM to SIGKILL: 10 s for the phase and 45 s for cleanup make this; the
 * rest is for what resists its end, and for delivery.
 */
const CLEANUP_OVER_S = 55;
/** What cleanup gets at least, when the job had come that late. */
const LEAST_CLEANUP_S = 20;

/** Limits in seconds; one that is not there is none. */
export interface PhaseLimits {
  /** Of the whole phase. */
  global?: number;
  /** Of its silence. */
  output?: number;
}

/** By what the limits of a phase are decided. */
export interface PhaseLimitsOptions {
  job: Job;
  config: AgentConfig;
  clock: Clock;
  /** The agent is told to stop; its reason is an `EndReason`. */
  stop: AbortSignal;
}

/** The limits of a phase that begins now. */
export function phaseLimits(
  phase: Phase,
  { job, config, clock, stop }: PhaseLimitsOptions,
): PhaseLimits {
  if (phase === "reserve") return {};
  const global = job.globalTimeout(config.global_timeout);
  if (phase === "cleanup" && stop.aborted) {
    const { reason } = stop;
    const now = clock.monotonic();
    const stoppedAt = isEndReason(reason) && reason.kind === "stopped" ? reason.at : now;
    const left = CLEANUP_OVER_S - (now - stoppedAt) / 1000;
    return { global: Math.min(global, Math.max(LEAST_CLEANUP_S, Math.floor(left))) };
  }
  if (phase !== "test") return { global };
  return { global, output: job.outputTimeout(config.output_timeout) };
}
