/** What the endpoints of a sandbox share. */
import type { Clock } from "../clock.ts";
import type { AgentStore } from "./agent_store.ts";
import type { Auth } from "./auth.ts";
import type { DateForm } from "./wire_form.ts";
import type { SandboxJobs } from "./job_store.ts";

/** The state of a sandbox, and how it was asked to behave. */
export interface World {
  readonly generation: "current" | "legacy";
  readonly clock: Clock;
  readonly auth: Auth;
  readonly jobs: SandboxJobs;
  readonly agents: AgentStore;
  /** Whether agents have a `mode` in addition to their `state`. */
  readonly mode: boolean;
  readonly hasStatus: boolean;
  readonly updatedAt: DateForm;
  readonly deliverWebhooks: boolean;
}
