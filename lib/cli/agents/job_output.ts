/** The output of the job that an agent runs, over its status socket. */
import { fetchFrom } from "./ask_agent.ts";

/** One part of a stream of server-sent events. */
interface ServerEvent {
  event: string;
  data: string;
}

/**
 * The end of what the job has printed, made fit for a screen, and with `follow` what it prints from
 * then on. `restarted`: another job has begun, or so much came that some was left out.
 */
export async function* jobOutput(
  folder: string,
  { follow, signal }: { follow: boolean; signal: AbortSignal },
): AsyncGenerator<{ text: string; restarted: boolean }> {
  const response = await fetchFrom(folder, "/v1/events", signal);
  if (!response.ok || response.body === null) throw new Error((await response.text()).trim());
  let first = true;
  for await (const { event, data } of serverEvents(response.body)) {
    if (event !== "tail" && event !== "output") continue;
    const text: unknown = JSON.parse(data);
    if (typeof text !== "string") continue;
    yield { text, restarted: event === "tail" && !first };
    first = false;
    if (!follow) return;
  }
}

async function* serverEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const part of body) {
    text += decoder.decode(part, { stream: true });
    while (true) {
      const end = text.indexOf("\n\n");
      if (end < 0) break;
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const field = (name: string) =>
        lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? "";
      yield { event: field("event"), data: field("data") };
    }
  }
}
