import { assertEquals } from "@std/assert";
import { ServerPages } from "../../lib/host/server_pages.ts";
import { serveSandbox } from "../../lib/sandbox/serve.ts";
import { FakeClock } from "../support/fake_clock.ts";

/** Waits until the server has answered so many times. */
async function answered(count: () => number, wanted: number): Promise<void> {
  while (count() < wanted) await new Promise((resolve) => setTimeout(resolve, 1));
}

Deno.test("a job's page on the server is known once it was asked for, where there is one", async () => {
  const served = serveSandbox();
  try {
    const jobId = served.sandbox.submit({ job_queue: "q", test_data: { test_cmds: "x" } });
    const pages = new ServerPages(served.url, new FakeClock());
    assertEquals(pages.of(jobId), undefined);
    while (pages.of(jobId) === undefined) await new Promise((resolve) => setTimeout(resolve, 1));
    assertEquals(pages.of("another/one"), `${served.url}/jobs/another%2Fone`);
  } finally {
    await served.close();
  }
});

Deno.test("of a server without pages there is no link, and it is asked every ten minutes at most", async () => {
  let asked = 0;
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, () => {
    asked++;
    return new Response("no such page", { status: 404 });
  });
  try {
    const clock = new FakeClock();
    const pages = new ServerPages(`http://127.0.0.1:${server.addr.port}`, clock);
    for (let n = 0; n < 3; n++) assertEquals(pages.of("job-1"), undefined);
    await answered(() => asked, 1);
    await clock.advance(600_000);
    assertEquals(pages.of("job-1"), undefined);
    await answered(() => asked, 2);
    assertEquals(asked, 2);
  } finally {
    await server.shutdown();
  }
});
