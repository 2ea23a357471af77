import { assertEquals } from "@std/assert";
import { AgentCookie } from "../../lib/server/session.ts";

function keep(cookie: AgentCookie, ...lines: string[]) {
  cookie.keepFrom(new Headers(lines.map((line) => ["Set-Cookie", line])));
  return cookie.header;
}

Deno.test("of what a server sets only the agent's cookie is kept, without its attributes", () => {
  const line = "agent_name=rpi4-01; HttpOnly; SameSite=Strict; Path=/";
  assertEquals(keep(new AgentCookie(), "session=x; Path=/", line), "agent_name=rpi4-01");
});

Deno.test("an answer that sets no cookie leaves the one there is", () => {
  const cookie = new AgentCookie();
  keep(cookie, "agent_name=a");
  assertEquals(keep(cookie, "other=1"), "agent_name=a");
  assertEquals(keep(cookie, "agent_name=b"), "agent_name=b");
});

Deno.test("a cookie that the server takes back is no longer sent", () => {
  const cookie = new AgentCookie();
  keep(cookie, "agent_name=a");
  assertEquals(keep(cookie, "agent_name=; Max-Age=0"), undefined);
  keep(cookie, "agent_name=a");
  assertEquals(keep(cookie, "agent_name=a; max-age=0; Path=/"), undefined);
});

Deno.test("a quoted value is sent back as it came", () => {
  assertEquals(keep(new AgentCookie(), 'agent_name="a\\054b"; Path=/'), 'agent_name="a\\054b"');
});
