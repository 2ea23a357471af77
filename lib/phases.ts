/** The phases of a job, in the order in which they run. `cleanup` is last, and always runs. */
export const PHASES = [
  "setup",
  "provision",
  "firmware_update",
  "test",
  "allocate",
  "reserve",
  "cleanup",
] as const;

/** One phase of a job. */
export type Phase = typeof PHASES[number];
