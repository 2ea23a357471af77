/** The only cookie a Testflinger server sets for agents; all others are none of our business. */
const AGENT_COOKIE = "agent_name";

/**
 * The cookie by which the server knows the agent that asks for a job. Native `fetch` keeps none.
 */
export class AgentCookie {
  #pair: string | undefined;

  /** What goes into the `Cookie` header; undefined while there is nothing to send. */
  get header(): string | undefined {
    return this.#pair;
  }

  /** Takes over what the answer to `POST /v1/agents/data/{agent_id}` sets. */
  keepFrom(headers: Headers): void {
    for (const line of headers.getSetCookie()) {
      const [pair = "", ...attributes] = line.split(";").map((part) => part.trim());
      const equals = pair.indexOf("=");
      if (pair.slice(0, equals) !== AGENT_COOKIE) continue;
      const removed = attributes.some((attribute) => /^max-age=(0|-\d+)$/i.test(attribute));
      // Only what may stand in a header: anything else would make every later request fail.
      const usable = /^[\x21-\x7e]+$/.test(pair) && equals < pair.length - 1;
      this.#pair = usable && !removed ? pair : undefined;
    }
  }
}
