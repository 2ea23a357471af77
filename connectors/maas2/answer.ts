import type { z } from "zod";
import { issuesText } from "../support/job.ts";

/** What is behind that many brackets that are not the answer's is not looked at. */
const MAX_CANDIDATES = 50;

/** How much of an answer that cannot be read is shown. */
const SHOWN_CHARS = 200;

/** What a program's JSON is, or what is wrong with it, as the object of "printed". */
export type Answer<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly problem: string };

/** Reads JSON with text before it: on a terminal the client prints a banner. */
export function parseAnswer<T>(text: string, schema: z.ZodType<T>): Answer<T> {
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
