import type { Sandbox } from "../../lib/sandbox/sandbox.ts";

/** A job id that no sandbox knows. */
export const UNKNOWN_JOB = "00000000-0000-0000-0000-000000000000";

/** A fragment that a server takes, but for what a test changes in it. */
export function fragment(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    fragment_number: 0,
    timestamp: "2026-01-01T00:00:00.000000+00:00",
    phase: "test",
    log_data: "hello\n",
    ...changes,
  };
}

/** A GET. */
export function get(
  sandbox: Sandbox,
  path: string,
  headers: Record<string, string> = {},
): Promise<Response> {
  return sandbox.fetch(new Request(`http://server${path}`, { headers }));
}

/** A POST of JSON. */
export function post(
  sandbox: Sandbox,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<Response> {
  return sandbox.fetch(
    new Request(`http://server${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers },
      body: JSON.stringify(body),
    }),
  );
}

/** A POST of a form with one file, made by the runtime's own writer of forms. */
export function upload(
  sandbox: Sandbox,
  path: string,
  bytes: Uint8Array<ArrayBuffer>,
  field = "file",
): Promise<Response> {
  const form = new FormData();
  form.append(field, new Blob([bytes], { type: "application/x-gzip" }), "file");
  return sandbox.fetch(new Request(`http://server${path}`, { method: "POST", body: form }));
}
