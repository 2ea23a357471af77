/** The cookie by which the server knows an agent again. */
import type { Context } from "hono";

const NAME = "agent_name";
const PLAIN = /^[\w!#$%&'()*+\-./:<=>?@[\]^`{|}~]*$/;

/** The agent that this request says it is; undefined when it does not say. */
export function agentOf(c: Context): string | undefined {
  for (const pair of (c.req.header("Cookie") ?? "").split(";")) {
    const [name, ...rest] = pair.split("=");
    if (name?.trim() === NAME) return unquote(rest.join("=").trim()) || undefined;
  }
  return undefined;
}

/** Names the agent to itself, for requests to come. */
export function setAgentCookie(c: Context, agentId: string): void {
  c.header("Set-Cookie", `${NAME}=${quote(agentId)}; HttpOnly; Path=/; SameSite=Strict`);
}

/** As the real server does it: what may not stand in a cookie becomes a backslash and octal digits. */
function quote(value: string): string {
  if (PLAIN.test(value)) return value;
  const quoted = Array.from(new TextEncoder().encode(value), (byte) => {
    const char = String.fromCharCode(byte);
    return byte < 128 && PLAIN.test(char) || char === " "
      ? char
      : `\\${byte.toString(8).padStart(3, "0")}`;
  });
  return `"${quoted.join("")}"`;
}

function unquote(value: string): string {
  if (!/^".*"$/.test(value)) return value;
  const bytes: number[] = [];
  for (const [whole, octal] of value.slice(1, -1).matchAll(/\\([0-7]{3})|[^]/g)) {
    bytes.push(octal === undefined ? whole.charCodeAt(0) : parseInt(octal, 8));
  }
  return new TextDecoder().decode(Uint8Array.from(bytes));
}
