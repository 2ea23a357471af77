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
    await using host = httpStub(() => new Response());
    await lab.config({ control_host: "127.0.0.1", control_host_port: host.port });
    await lab.job({ test_data: { test_cmds: 'echo "$no_proxy"' } });
    const run = startEntry(lab, ["noprovision", "runtest", "-c", "c.yaml", "testflinger.json"], {
      http_proxy: PROXY,
      no_proxy: noProxy,
    });
    const { code, stderr } = await run.end();
    assertEquals(code, 0, stderr);
    assertEquals(host.requests.length, asked, stderr);
    // The tests have the variable as it was.
    assertEquals(run.stdout(), `${noProxy}\n`);
  });
}
