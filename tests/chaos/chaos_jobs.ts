/** Jobs that print what can be checked, and the phases that run them. */
import type { Random } from "./random.ts";

/** What one job does. */
export interface ChaosJob {
  /** Numbered lines that its test prints. */
  lines: number;
  /** Lines between two short pauses. */
  burst: number;
  exit: number;
  artifact: boolean;
  /** A second artifact, far larger than `max_spool` but for its holes. */
  sparse: boolean;
  /** A serial log of a terabyte, but for its holes, with the secret at its end. */
  serial: boolean;
  /** A process that clears its environment, and leaves its session and its parent. */
  hiding: boolean;
  provision: boolean;
  /** Secrets that would decide which programs the provision runs. */
  loader: boolean;
  attachment: boolean;
}

/** The secret of every job; its text must never be found on the server. */
export const SECRET = "chaos+secret/with=signs & spaces";

const LOADER_SECRETS = { PATH: "/nonexistent", LD_PRELOAD: "/nonexistent.so" };

/** What the agent says of each of them. */
export const LEFT_OUT = /^WARNING: The secret "(PATH|LD_PRELOAD)" is left out: .*\n/gm;

/** What jobs do that is no good, and how many of them. */
export const JOB_FAULTS = {
  "sparse artifact": 0.15,
  "sparse serial log": 0.15,
  "hiding process": 0.2,
  "loader secrets": 0.3,
} as const;

/** A job by chance. */
export function randomJob(random: Random): ChaosJob {
  return {
    lines: random.int(1, 400),
    burst: random.int(5, 60),
    // Not 46: that would take the agent offline.
    exit: random.chance(0.2) ? random.int(1, 45) : 0,
    artifact: random.chance(0.6),
    sparse: random.chance(JOB_FAULTS["sparse artifact"]),
    serial: random.chance(JOB_FAULTS["sparse serial log"]),
    hiding: random.chance(JOB_FAULTS["hiding process"]),
    provision: random.chance(0.5),
    loader: random.chance(JOB_FAULTS["loader secrets"]),
    attachment: random.chance(0.3),
  };
}

/** The job as it is submitted. */
export function jobBody(job: ChaosJob, queue: string): Record<string, unknown> {
  return {
    job_queue: queue,
    chaos: job,
    job_status_webhook: "http://127.0.0.1:9/webhook",
    ...(job.provision && {
      provision_data: { url: "x", ...(job.loader && { secrets: LOADER_SECRETS }) },
    }),
    ...(job.attachment && { attachments_status: "complete" }),
    test_data: { test_cmds: "x", secrets: { CHAOS_SECRET: SECRET } },
  };
}

/** Everything that the test of a job prints, as the server should have it. */
export function expectedOutput(job: ChaosJob, masked: string): string {
  let text = "begin ä€😀\n";
  for (let i = 1; i <= job.lines; i++) text += `line ${i} of ${job.lines} ${masked}\n`;
  return `${text}end\n`;
}

/** Asks whether something is so of the job. */
const IS = (name: string) => `grep -q '"${name}":true' testflinger.json`;

/** Reads a number of the job from its file. */
const NUMBER = (name: string) => `$(sed -n 's/.*"${name}":\\([0-9]*\\).*/\\1/p' testflinger.json)`;

/**
 * The phase commands. `truth` is a folder outside of all that the agent touches: what the commands
 * note there is what really happened.
 */
export function phaseCommands(truth: string): Record<string, string> {
  const job = '"${PWD##*/}"';
  return {
    setup_command: "echo setting up",
    provision_command: `echo provisioning; sleep 0.05; echo provisioned`,
    // The grandchildren ignore TERM, and one of them leaves the process group.
    test_command: `lines=${NUMBER("lines")}; burst=${NUMBER("burst")}; ` +
      `if ${
        IS("hiding")
      }; then (env -i setsid sh -c 'trap "" TERM; while :; do sleep 1000; done' ` +
      `${job} > /dev/null 2>&1 &); fi; ` +
      `if ${IS("serial")}; then printf 'booting\\n' > test-serial.log; ` +
      `truncate -s 1T test-serial.log; echo "$CHAOS_SECRET" >> test-serial.log; fi; ` +
      `(trap "" TERM; exec sleep 1000) & setsid sh -c 'trap "" TERM; exec sleep 1000' > /dev/null 2>&1 & ` +
      `printf 'begin ä€😀\\n'; i=0; while [ $i -lt $lines ]; do i=$((i + 1)); ` +
      `echo "line $i of $lines $CHAOS_SECRET"; [ $((i % burst)) -eq 0 ] && sleep 0.03; done; ` +
      `if ${IS("artifact")}; then mkdir artifacts; ` +
      `seq 1 20000 > artifacts/numbers; ` +
      `if ${IS("sparse")}; then truncate -s 32M artifacts/sparse; fi; fi; echo end; exit ${
        NUMBER("exit")
      }`,
    cleanup_command: `echo begin >> ${truth}/${job}; echo cleaning; sleep 0.05; ` +
      `echo end >> ${truth}/${job}; echo cleaned`,
  };
}
