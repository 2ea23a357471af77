/** Passing a job's events on to the address that the job names. */
import type { EventsUpdate } from "../server/schema.ts";
import { RefusedRequest } from "./answers.ts";

/** As long as the real server waits for a webhook. */
const WEBHOOK_TIMEOUT_MS = 3000;

/**
 * Puts the events to the webhook and answers what it answers.
 *
 * @throws RefusedRequest 500 when the webhook refuses our authority, 504 when it is too slow, 502 when it
 *   is not there.
 */
export async function deliver(
  webhook: string,
  update: Omit<EventsUpdate, "job_status_webhook">,
): Promise<Response> {
  let answer: Response;
  let body: string;
  try {
    answer = await fetch(webhook, {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(update),
      redirect: "manual",
      signal: AbortSignal.timeout(WEBHOOK_TIMEOUT_MS),
    });
    body = await answer.text();
  } catch (error) {
    if (error instanceof DOMException && error.name === "TimeoutError") {
      throw new RefusedRequest(504, "Webhook Timeout");
    }
    throw new RefusedRequest(502, "Webhook unreachable");
  }
  if (answer.status === 401 || answer.status === 403) {
    throw new RefusedRequest(500, "Webhook authentication failed");
  }
  const empty = body === "" || answer.status === 204 || answer.status === 304;
  return new Response(empty ? null : body, { status: answer.status });
}
