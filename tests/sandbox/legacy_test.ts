import { assertEquals } from "@std/assert";
import { createSandbox } from "../../lib/sandbox/sandbox.ts";
import { fragment, get, post } from "./call.ts";

function legacy() {
  const sandbox = createSandbox({ generation: "legacy" });
  const jobId = sandbox.submit({ job_queue: "rpi4" });
  const say = (path: string, text: string) =>
    sandbox.fetch(
      new Request(`http://server/v1/result/${jobId}/${path}`, {
        method: "POST",
        headers: { "Content-Type": "text/plain; charset=utf-8" },
        body: text,
      }),
    );
  return { sandbox, jobId, say };
}

Deno.test("a legacy server has no log endpoint", async () => {
  const { sandbox, jobId } = legacy();
  for (const type of ["output", "serial"]) {
    const path = `/v1/result/${jobId}/log/${type}`;
    assertEquals((await post(sandbox, path, fragment())).status, 404);
    assertEquals((await get(sandbox, path)).status, 404);
  }
  assertEquals((await get(sandbox, `/v1/result/${jobId}/status`)).status, 404);
});

Deno.test("legacy output is kept until a reader fetches it, then it is gone", async () => {
  const { sandbox, jobId, say } = legacy();
  assertEquals((await get(sandbox, `/v1/result/${jobId}/output`)).status, 204);
  assertEquals(await (await say("output", "one\n")).text(), "OK");
  await say("output", "zwölf\n");
  await say("serial_output", "U-Boot\n");
  const output = await get(sandbox, `/v1/result/${jobId}/output`);
  assertEquals([output.status, await output.text()], [200, "one\n\nzwölf\n"]);
  assertEquals((await get(sandbox, `/v1/result/${jobId}/output`)).status, 204);
  assertEquals(await (await get(sandbox, `/v1/result/${jobId}/serial_output`)).text(), "U-Boot\n");
});

Deno.test("what was posted to a legacy server stays visible to a test after it was fetched", async () => {
  const { sandbox, jobId, say } = legacy();
  await say("output", "one\n");
  await get(sandbox, `/v1/result/${jobId}/output`);
  await say("output", "two\n");
  assertEquals(sandbox.log(jobId, "output"), "one\ntwo\n");
  assertEquals(sandbox.fragments(jobId, "output").map((f) => f.log_data), ["one\n", "two\n"]);
  assertEquals(sandbox.log(jobId, "serial"), "");
});

Deno.test("a legacy result takes flat keys, and shows the log only as they carry it", async () => {
  const { sandbox, jobId, say } = legacy();
  await say("output", "live");
  const path = `/v1/result/${jobId}`;
  await post(sandbox, path, { job_state: "test", device_info: { device_ip: "10.0.0.1" } });
  const outcome = {
    job_state: "complete",
    setup_status: 0,
    test_status: 3,
    test_output: "the end of the log",
    test_serial: "U-Boot",
  };
  assertEquals((await post(sandbox, path, outcome)).status, 200);
  assertEquals(await (await get(sandbox, path)).json(), {
    ...outcome,
    device_info: { device_ip: "10.0.0.1" },
  });
  assertEquals(sandbox.log(jobId, "output", "test"), "the end of the log");
  assertEquals(sandbox.log(jobId, "output", "setup"), "");
});

for (
  const body of [{ status: { test: 0 } }, { colour: 1 }, { test_status: "0" }, { test_output: 1 }]
) {
  Deno.test(`a result of ${JSON.stringify(body)} is 422 on a legacy server`, async () => {
    const { sandbox, jobId } = legacy();
    assertEquals((await post(sandbox, `/v1/result/${jobId}`, body)).status, 422);
  });
}

Deno.test("a legacy server hands out jobs without a cookie", async () => {
  const { sandbox, jobId } = legacy();
  const job = await (await get(sandbox, "/v1/job?queue=rpi4")).json();
  assertEquals([job.job_id, sandbox.state(jobId)], [jobId, "running"]);
});

Deno.test("legacy output of an id that is not a UUID is 400", async () => {
  const { sandbox } = legacy();
  assertEquals((await post(sandbox, "/v1/result/bad/output", {})).status, 400);
  assertEquals((await get(sandbox, "/v1/result/bad/output")).status, 400);
});
