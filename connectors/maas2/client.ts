/** A machine in MAAS: the `maas` command line client, which repeats what may work in a moment, and what it says of the machine. */
import * as z from "zod";
import { need } from "../support/config.ts";
import { ProvisioningError } from "../support/errors.ts";
import { issuesText } from "../support/job.ts";
import { type CommandResult, failureText, succeeded } from "../support/process/runner.ts";
import type { MaasContext } from "./config.ts";

const CALL_TIMEOUT_MS = 120_000;

/** MAAS talks to the machine's power controller before it answers these. */
export const LONG_CALL_TIMEOUT_MS = 300_000;

const RETRY_PAUSES_MS = [10_000, 20_000, 40_000];

/** The second word of calls that change nothing: they are repeated whatever they fail with. */
const READS = ["read", "download"];

/**
 * What MAAS or its client says when it refuses for good: the same call would be refused again. A
 * failure with other words may be over in a moment, and the call is repeated.
 */
const REFUSAL = new RegExp(
  [
    // Statuses of the kind 4xx, but for "request timeout", "conflict" and "too many requests". Calls
    // that come at the same time may conflict, and MAAS wants them repeated. A conflict with the
    // machine's state it tells in other words.
    "(?:http|status|error|code)\\W{0,3}(?:[\\d.]+\\s+)?4(?!08|09|29)\\d\\d\\b",
    "bad request|unauthori[sz]ed|forbidden|not found|method not allowed",
    "no \\w+ matches the given query|does not exist|already (?:exists|in use)",
    "no available machine matches",
    "authori[sz]ation error|invalid api key|permission denied|not permitted",
    "cannot be \\w+ (?:in|because|while)|current(?:ly in)? (?:state|status)",
    // What forms say of a value: {"distro_series": ["'x' is not a valid distro_series."]}
    '^\\s*\\{"\\w+": \\["|is not a valid|select a valid choice|field is required|ensure this value',
    // The client's own judgement of its command line.
    "^usage:|unrecogni[sz]ed arguments|invalid choice|arguments are required",
  ].join("|"),
  "im",
);

/** One call of the client. */
export interface MaasCall {
  /** What it is for, as the object of "Cannot": "release the machine". */
  readonly step: string;
  /** @default 120 s */
  readonly timeoutMs?: number;
  /** False: never repeat the call. @default true */
  readonly retry?: boolean;
  /**
   * Asked before a call is repeated whose answer was lost: has MAAS carried it out anyway?
   * Then its answer, and the call is not repeated. What it throws does not matter.
   */
  readonly doneAlready?: () => Promise<string | undefined>;
  /**
   * A repetition that is refused shows that the first call was carried out: what was to be removed
   * is not there any more. @default false
   */
  readonly repeatMayBeRefused?: boolean;
}

/** MAAS, as the configured profile. */
export interface Maas {
  /** System id of the machine. */
  readonly node: string;
  /**
   * Runs `maas <profile> <words>`.
   *
   * @returns what it prints on standard output.
   * @throws ProvisioningError naming the step, and how each attempt ended.
   */
  call(words: readonly string[], call: MaasCall): Promise<string>;
  /**
   * The same for calls that print JSON.
   *
   * @throws ProvisioningError also when what is printed is not what `schema` says.
   */
  read<T>(words: readonly string[], call: MaasCall & { readonly schema: z.ZodType<T> }): Promise<T>;
}

/** MAAS, as the configuration says. Throws ProvisioningError where it does not say enough. */
export function maasClient(ctx: MaasContext): Maas {
  const profile = need(ctx.config, "maas_user");
  const { clock, log, runner, signal } = ctx;

  async function call(words: readonly string[], call: MaasCall): Promise<string> {
    const program = programName(words);
    const failures: string[] = [];
    const pauses = call.retry === false ? [] : RETRY_PAUSES_MS;
    for (const pauseMs of [...pauses, undefined]) {
      const result = await runner.run(["maas", profile, ...words], {
        timeoutMs: call.timeoutMs ?? CALL_TIMEOUT_MS,
      });
      if (succeeded(result)) return result.stdout;
      const refused = isRefusal(result);
      if (call.repeatMayBeRefused && refused && failures.length > 0) return "";
      failures.push(failureText(program, result));
      const final = result.ended === "not_started" || (refused && !isRead(words));
      if (final || pauseMs === undefined) break;
      log.warning(`${failures.at(-1)}; trying again in ${pauseMs / 1000} s`);
      await clock.sleep(pauseMs, signal);
      const answer = await call.doneAlready?.().catch(() => undefined);
      signal.throwIfAborted();
      if (answer !== undefined) return answer;
    }
    throw new ProvisioningError(
      failures.length === 1
        ? `Cannot ${call.step}: ${failures[0]}`
        : `Cannot ${call.step}, after ${failures.length} attempts: ${failures.join("; ")}`,
    );
  }

  return {
    node: need(ctx.config, "node_id"),
    call,
    async read(words, { schema, ...options }) {
      const answer = parseAnswer(await call(words, options), schema);
      if (answer.ok) return answer.value;
      throw new ProvisioningError(
        `Cannot ${options.step}: '${programName(words)}' printed ${answer.problem}`,
      );
    },
  };
}

/** Without the arguments: there may be user data among them. */
function programName(words: readonly string[]): string {
  return ["maas", ...words.slice(0, 2)].join(" ");
}

function isRead([, verb = ""]: readonly string[]): boolean {
  return READS.includes(verb);
}

function isRefusal(result: CommandResult): boolean {
  return result.ended === "exited" && REFUSAL.test(`${result.stdout}\n${result.stderr}`);
}

/** What is behind that many brackets that are not the answer's is not looked at. */
const MAX_CANDIDATES = 50;

/** How much of an answer that cannot be read is shown. */
const SHOWN_CHARS = 200;

/** What a program's JSON is, or what is wrong with it, as the object of "printed". */
type Answer<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problem: string };

/** Reads JSON with text before it: on a terminal the client prints a banner. */
function parseAnswer<T>(text: string, schema: z.ZodType<T>): Answer<T> {
  let issues: string | undefined;
  let candidates = 0;
  for (const { index } of text.matchAll(/[{[]/g)) {
    if (++candidates > MAX_CANDIDATES) break;
    const value = jsonFrom(text.slice(index));
    if (value === undefined) continue;
    const answer = schema.safeParse(value);
    if (answer.success) return { ok: true, value: answer.data };
    issues ??= issuesText(answer.error);
  }
  if (issues !== undefined) return { ok: false, problem: `an unexpected answer: ${issues}` };
  const shown = text.trim().slice(0, SHOWN_CHARS);
  return { ok: false, problem: shown === "" ? "nothing" : `what is not JSON: ${shown}` };
}

function jsonFrom(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** What the steps of one run share. */
export interface MaasSession {
  readonly ctx: MaasContext;
  readonly maas: Maas;
  /** Show what release and recovery commands print: the job's `debug`. */
  readonly debug: boolean;
}

/** What is read of a machine. */
export interface Machine {
  /** `status_name`: "Ready", "Deploying", "Failed deployment" ... */
  readonly status: string;
  readonly addresses: readonly string[];
}

const machineSchema = z.looseObject({
  status_name: z.string(),
  ip_addresses: z.array(z.string()).nullish(),
});

/** Asks MAAS for the machine's state. Throws ProvisioningError. */
export async function readMachine(
  { maas }: MaasSession,
  options: Pick<MaasCall, "retry"> = {},
): Promise<Machine> {
  const machine = await maas.read(["machine", "read", maas.node], {
    step: "read the machine's status",
    schema: machineSchema,
    ...options,
  });
  return { status: machine.status_name, addresses: machine.ip_addresses ?? [] };
}

/** For `MaasCall.doneAlready`: has the machine got into one of these states? */
export async function isIn(
  session: MaasSession,
  statuses: readonly string[],
): Promise<string | undefined> {
  const { status } = await readMachine(session, { retry: false });
  return statuses.includes(status) ? "" : undefined;
}
