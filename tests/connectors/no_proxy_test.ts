import { assertEquals } from "@std/assert";
import { startEntry } from "./support/entry_process.ts";
import { Lab } from "./support/lab.ts";
import { closedPort, httpStub } from "./support/stubs.ts";

/** A proxy that is not there: what goes by way of it fails. */
const PROXY = `http://127.0.0.1:${closedPort()}`;

for (
  const [noProxy, asked] of [
    ["*", 1],
    ["localhost, *", 1],
    ["127.0.0.1", 1],
    ["example.com", 0],
    ["*.example.com", 0],
  ] as const
) {
  Deno.test(`no_proxy=${noProxy} has an address asked ${asked ? "directly" : "by way of the proxy"}`, async () => {
    await using lab = await Lab.open();
    await using server = httpStub(() => new Response());
    await lab.config({ agent_name: "a1", testflinger_server: server.url });
    await lab.job({ test_data: { test_cmds: 'echo "$no_proxy"' } });
    await lab.write("job_list.json", '[{"job_id": "c1"}]');
    const run = async (stage: string) => {
      const started = startEntry(lab, ["multi", stage, "-c", "c.yaml", "testflinger.json"], {
        http_proxy: PROXY,
        no_proxy: noProxy,
      });
      const { code, stderr } = await started.end();
      assertEquals(code, 0, stderr);
      return started.stdout();
    };
    await run("cleanup");
    assertEquals(server.requests.length, asked);
    // The tests have the variable as it was.
    assertEquals(await run("runtest"), `${noProxy}\n`);
  });
}
