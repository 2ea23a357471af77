import { assertEquals } from "@std/assert";
import { Lab } from "../support/lab.ts";

Deno.test("a gateway that redirects to a page for people for a while costs nothing of a job", async () => {
  await using lab = await Lab.open({ config: { test_command: "echo hello; mkdir artifacts" } });
  let redirects = 0;
  lab.sandbox.intercept((request) =>
    request.method === "POST" && request.url.includes("/v1/result/") && ++redirects <= 6
      ? new Response(null, {
        status: 302,
        headers: { location: "http://127.0.0.1:9/maintenance.html" },
      })
      : undefined
  );
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.output(jobId, "test"), "hello\n");
  assertEquals(lab.statuses(jobId), { test: 0 });
  assertEquals(lab.sandbox.artifact(jobId) !== undefined, true);
});
