import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { createSandbox } from "../../lib/sandbox/sandbox.ts";
import { serveSandbox } from "../../lib/sandbox/serve.ts";
import { PHASES } from "../../lib/phases.ts";
import { settle } from "../support/fake_clock.ts";
import { fragment, get, post, UNKNOWN_JOB, upload } from "./call.ts";

const MIB = 1024 * 1024;

Deno.test("a result starts with the state waiting, and is 204 for an unknown job", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const answer = await get(sandbox, `/v1/result/${jobId}`);
  assertEquals(await answer.text(), '{"job_state":"waiting"}\n');
  const unknown = await get(sandbox, `/v1/result/${UNKNOWN_JOB}`);
  assertEquals([unknown.status, await unknown.text()], [204, ""]);
});

Deno.test("posts to a result merge, and status shows as one key for each phase", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const path = `/v1/result/${jobId}`;
  await post(sandbox, path, { job_state: "setup" });
  await post(sandbox, path, { status: { setup: 0 }, device_info: { device_ip: "10.0.0.1" } });
  const last = await post(sandbox, path, {
    job_state: "complete",
    status: { setup: 0, provision: 46 },
  });
  assertEquals([last.status, await last.text()], [200, "OK"]);
  assertEquals(await (await get(sandbox, path)).json(), {
    device_info: { device_ip: "10.0.0.1" },
    job_state: "complete",
    provision_status: 46,
    setup_status: 0,
  });
  assertEquals(sandbox.state(jobId), "complete");
});

Deno.test("a posted state overwrites cancelled", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  sandbox.cancel(jobId);
  await post(sandbox, `/v1/result/${jobId}`, { job_state: "test" });
  assertEquals(sandbox.state(jobId), "test");
});

Deno.test("posting to the result of an unknown job is taken and forgotten", async () => {
  const sandbox = createSandbox();
  const answer = await post(sandbox, `/v1/result/${UNKNOWN_JOB}`, { job_state: "test" });
  assertEquals(answer.status, 200);
  assertEquals((await get(sandbox, `/v1/result/${UNKNOWN_JOB}`)).status, 204);
});

for (
  const body of [
    { colour: 1 },
    { test_output: "flat keys are for legacy servers" },
    { test_status: 0 },
    { status: { unheard_of: 0 } },
    { status: { test: "0" } },
    { status: { test: 256 } },
    { job_state: 1 },
    { device_info: "text" },
  ]
) {
  Deno.test(`a result of ${JSON.stringify(body)} is 422 on a current server`, async () => {
    const sandbox = createSandbox();
    const jobId = sandbox.submit({ job_queue: "q" });
    const answer = await post(sandbox, `/v1/result/${jobId}`, body);
    assertEquals(answer.status, 422);
    assertEquals((await answer.json()).message, "Validation error");
    assertEquals(sandbox.result(jobId), { job_state: "waiting" });
  });
}

Deno.test("a result of 16 MiB is 413, with Content-Length and without; one byte less is not", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const frame = '{"job_state":""}'.length;
  const body = (size: number) => JSON.stringify({ job_state: "x".repeat(size - frame) });
  const send = (text: string, sized: boolean) =>
    sandbox.fetch(
      new Request(`http://server/v1/result/${jobId}`, {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
          ...sized && { "Content-Length": String(text.length) },
        },
        body: new Blob([text]).stream(),
      }),
    );
  for (const sized of [true, false]) {
    const answer = await send(body(16 * MIB), sized);
    assertEquals(answer.status, 413);
    assertEquals((await answer.json()).message, "Payload too large");
    assertEquals((await send(body(16 * MIB - 1), sized)).status, 200);
  }
});

Deno.test("ids that are not UUIDs are 400 on every endpoint of a result", async () => {
  const sandbox = createSandbox();
  const answers = [
    await get(sandbox, "/v1/result/bad"),
    await get(sandbox, "/v1/result/bad/status"),
    await get(sandbox, "/v1/result/bad/artifact"),
    await get(sandbox, "/v1/result/bad/log/output"),
    await get(sandbox, "/v1/result/0000000-0000-0000-0000-00000000000X"),
    await post(sandbox, "/v1/result/bad", {}),
    await post(sandbox, "/v1/result/bad/log/output", fragment()),
    await post(sandbox, "/v1/result/bad/log/serial", fragment()),
    await upload(sandbox, "/v1/result/bad/artifact", new Uint8Array(1)),
  ];
  for (const answer of answers) {
    assertEquals(answer.status, 400);
    assertMatch(await answer.text(), /Invalid job.?id/);
  }
});

Deno.test("fragments are read back sorted by number, and a repeated one is there twice", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const path = `/v1/result/${jobId}/log/output`;
  for (const number of [0, 2, 1, 1]) {
    const answer = await post(
      sandbox,
      path,
      fragment({ fragment_number: number, log_data: `${number}\n` }),
    );
    assertEquals([answer.status, await answer.text()], [200, "OK"]);
  }
  assertEquals(sandbox.log(jobId, "output"), "0\n1\n1\n2\n");
  assertEquals(sandbox.log(jobId, "output", "test"), "0\n1\n1\n2\n");
  assertEquals(sandbox.fragments(jobId, "output").map((f) => f.fragment_number), [0, 2, 1, 1]);
  const result = await (await get(sandbox, `/v1/result/${jobId}`)).json();
  assertEquals(result.test_output, "0\n1\n1\n2\n");
});

Deno.test("a result carries each phase's output and serial log under its own key", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  let number = 0;
  for (const phase of PHASES) {
    for (const type of ["output", "serial"]) {
      const body = fragment({ fragment_number: number++, phase, log_data: `${phase} ${type}` });
      await post(sandbox, `/v1/result/${jobId}/log/${type}`, body);
    }
  }
  await post(sandbox, `/v1/result/${jobId}`, {
    status: Object.fromEntries(PHASES.map((phase) => [phase, 0])),
    device_info: { z: 1, a: { y: 2, b: 3 } },
  });
  const text = await (await get(sandbox, `/v1/result/${jobId}`)).text();
  const result = JSON.parse(text);
  for (const phase of PHASES) {
    assertEquals(result[`${phase}_output`], `${phase} output`);
    assertEquals(result[`${phase}_serial`], `${phase} serial`);
  }
  const keys = Object.keys(result);
  assertEquals(keys.length, 3 * PHASES.length + 2);
  assertEquals(keys, keys.toSorted(), "keys come in alphabetical order");
  assertStringIncludes(text, '"device_info":{"a":{"b":3,"y":2},"z":1}');
});

Deno.test("an empty log has no key in the result", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  await post(sandbox, `/v1/result/${jobId}/log/output`, fragment({ log_data: "" }));
  assertEquals(await (await get(sandbox, `/v1/result/${jobId}`)).json(), { job_state: "waiting" });
});

Deno.test("answers are pure ASCII, whatever the log holds, and read back the same", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const text = 'Grüße 🚀 \u0000\u0007\u007f\u2028 "\\\r\n\t \ufffd';
  await post(sandbox, `/v1/result/${jobId}/log/output`, fragment({ log_data: text }));
  const answer = await (await get(sandbox, `/v1/result/${jobId}`)).text();
  assertMatch(answer, /^[\x20-\x7e]*\n$/);
  assertEquals(JSON.parse(answer).test_output, text);
});

const WRONG_FRAGMENTS = [
  { fragment_number: -1 },
  { fragment_number: "0" },
  { fragment_number: 1.5 },
  { timestamp: "2026-01-01T00:00:00" },
  { timestamp: "yesterday" },
  { phase: "coffee" },
  { log_data: 1 },
  { log_data: undefined },
  { colour: 1 },
];
for (const changes of WRONG_FRAGMENTS) {
  const what = JSON.stringify(changes, (_, value) => value === undefined ? "(none)" : value);
  Deno.test(`a fragment with ${what} is 422 and not kept`, async () => {
    const sandbox = createSandbox();
    const jobId = sandbox.submit({ job_queue: "q" });
    const answer = await post(sandbox, `/v1/result/${jobId}/log/output`, fragment(changes));
    assertEquals(answer.status, 422);
    const { detail } = await answer.json();
    assertEquals(Object.keys(detail.json), Object.keys(changes));
    assertEquals(sandbox.fragments(jobId, "output"), []);
  });
}

Deno.test("a fragment of 16 MiB is 413", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const body = fragment({ log_data: "x".repeat(16 * MIB) });
  assertEquals((await post(sandbox, `/v1/result/${jobId}/log/output`, body)).status, 413);
});

Deno.test("the log endpoint gives what came since a fragment or a time, of all phases or one", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const path = `/v1/result/${jobId}/log/output`;
  for (let i = 0; i < 4; i++) {
    await post(
      sandbox,
      path,
      fragment({
        fragment_number: i,
        phase: i < 2 ? "setup" : "test",
        timestamp: `2026-01-01T0${i}:00:00+00:00`,
        log_data: `${i}\n`,
      }),
    );
  }
  const read = async (query: string) =>
    (await (await get(sandbox, `${path}${query}`)).json()).output;
  const all = await read("");
  assertEquals(Object.keys(all), PHASES.toSorted());
  assertEquals(all.setup, { last_fragment_number: 1, log_data: "0\n1\n" });
  assertEquals(all.test, { last_fragment_number: 3, log_data: "2\n3\n" });
  assertEquals(all.reserve, { last_fragment_number: -1, log_data: "" });
  assertEquals(await read("?phase=test&start_fragment=3"), {
    test: { last_fragment_number: 3, log_data: "3\n" },
  });
  for (
    const since of ["2026-01-01T01:00:00", "2026-01-01T01:00:00Z", "2026-01-01T02:00:00%2B01:00"]
  ) {
    const { setup, test } = await read(`?start_timestamp=${since}`);
    assertEquals([setup.log_data, test.log_data], ["1\n", "2\n3\n"], since);
  }
  for (
    const query of ["?start_fragment=-1", "?start_fragment=x", "?phase=x", "?start_timestamp=x"]
  ) {
    assertEquals((await get(sandbox, `${path}${query}`)).status, 400, query);
  }
});

Deno.test("the status endpoint gives the outcome without logs and device", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  await post(sandbox, `/v1/result/${jobId}/log/output`, fragment());
  await post(sandbox, `/v1/result/${jobId}`, { status: { test: 3 }, device_info: { a: 1 } });
  assertEquals(await (await get(sandbox, `/v1/result/${jobId}/status`)).json(), {
    job_state: "waiting",
    test_status: 3,
  });
  assertEquals((await get(sandbox, `/v1/result/${UNKNOWN_JOB}/status`)).status, 204);
});

Deno.test("an artifact reads back byte for byte, and a repeated upload replaces it", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const path = `/v1/result/${jobId}/artifact`;
  assertEquals((await get(sandbox, path)).status, 204);
  assertEquals(sandbox.artifact(jobId), undefined);
  for (const size of [200_000, 0, 3]) {
    const bytes = new Uint8Array(size);
    for (let at = 0; at < size; at += 65_536) {
      crypto.getRandomValues(bytes.subarray(at, Math.min(size, at + 65_536)));
    }
    assertEquals((await upload(sandbox, path, bytes)).status, 200);
    assertEquals(sandbox.artifact(jobId), bytes);
    assertEquals(await (await get(sandbox, path)).bytes(), bytes);
  }
});

Deno.test("an artifact in another field than 'file' is 400", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const answer = await upload(sandbox, `/v1/result/${jobId}/artifact`, new Uint8Array(1), "files");
  assertEquals(answer.status, 400);
  assertEquals((await answer.json()).message, "The upload has no field 'file'");
});

Deno.test("a current server has none of the legacy output endpoints", async () => {
  const sandbox = createSandbox();
  for (const name of ["output", "serial_output"]) {
    assertEquals((await post(sandbox, `/v1/result/${UNKNOWN_JOB}/${name}`, {})).status, 404);
    assertEquals((await get(sandbox, `/v1/result/${UNKNOWN_JOB}/${name}`)).status, 404);
  }
});

Deno.test("results read while fragments arrive are whole: all up to some moment, none twice", async () => {
  const { sandbox, url, close } = serveSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const line = (number: number) => `line ${number} ${"x".repeat(1000)}\n`;
  const COUNT = 300;
  const posting = (async () => {
    for (let i = 0; i < COUNT; i++) {
      const answer = await fetch(`${url}/v1/result/${jobId}/log/output`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(fragment({ fragment_number: i, log_data: line(i) })),
      });
      assertEquals(await answer.text(), "OK");
    }
  })();
  const read = async () => {
    const { test_output: text = "", job_state } = await (await fetch(`${url}/v1/result/${jobId}`))
      .json();
    assertEquals(job_state, "waiting");
    const lines = text.split("\n").slice(0, -1);
    assertEquals(text, lines.map((_: string, i: number) => line(i)).join(""));
    return lines.length;
  };
  const readers = [1, 2, 3].map(async () => {
    let seen = 0;
    while (seen < COUNT) {
      const now = await read();
      assert(now >= seen, "a log never shrinks");
      seen = now;
    }
  });
  await Promise.all([posting, ...readers]);
  await close();
});

Deno.test("a result holds what was there when it was asked for, however late it is read", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const path = `/v1/result/${jobId}/log/output`;
  await post(sandbox, path, fragment({ log_data: "before" }));
  const answer = await get(sandbox, `/v1/result/${jobId}`);
  await post(sandbox, path, fragment({ fragment_number: 1, log_data: "after" }));
  assertEquals((await answer.json()).test_output, "before");
});

Deno.test("a reader who leaves early stops the server from producing the rest", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const path = `/v1/result/${jobId}/log/output`;
  let read = 0;
  const COUNT = 40;
  for (let i = 0; i < COUNT; i++) {
    await post(sandbox, path, fragment({ fragment_number: i, log_data: "x".repeat(100_000) }));
  }
  for (const kept of sandbox.fragments(jobId, "output")) {
    const text = kept.log_data;
    Object.defineProperty(kept, "log_data", { get: () => (read++, text) });
  }
  const answer = await get(sandbox, `/v1/result/${jobId}`);
  await settle();
  const reader = answer.body?.getReader();
  assertStringIncludes(new TextDecoder().decode((await reader?.read())?.value), '"job_state"');
  await reader?.cancel();
  await settle();
  assert(read < COUNT / 4, `${read} of ${COUNT} fragments were produced`);
});

Deno.test("the state of a job alone comes with the statuses, and without logs and the device", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const path = `/v1/result/${jobId}`;
  await post(sandbox, path, {
    job_state: "test",
    status: { setup: 0 },
    device_info: { device_ip: "10.0.0.1" },
  });
  await post(sandbox, `${path}/log/output`, fragment());
  const answer = await get(sandbox, `${path}/status`);
  assertEquals(await answer.json(), { job_state: "test", setup_status: 0 });
});

Deno.test("a server from before August 2026 cannot be asked for the state alone", async () => {
  const sandbox = createSandbox({ hasStatus: false });
  const jobId = sandbox.submit({ job_queue: "q" });
  assertEquals((await get(sandbox, `/v1/result/${jobId}/status`)).status, 404);
  assertEquals((await get(sandbox, `/v1/result/${jobId}`)).status, 200);
});

Deno.test("of a job that was forgotten nothing is known, and nothing is taken", async () => {
  const sandbox = createSandbox();
  const jobId = sandbox.submit({ job_queue: "q" });
  const path = `/v1/result/${jobId}`;
  await post(sandbox, `${path}/log/output`, fragment());
  sandbox.forgetJob(jobId);
  for (const end of ["", "/log/output", "/artifact"]) {
    const answer = await post(sandbox, path + end, end === "" ? {} : fragment());
    assertEquals([answer.status, (await answer.json()).message], [404, "Job not found"]);
  }
  assertEquals((await get(sandbox, path)).status, 204);
  assertEquals(sandbox.log(jobId, "output"), "");
  // Its id may be given to a job again.
  sandbox.submit({ job_queue: "q", job_id: jobId });
  assertEquals((await post(sandbox, path, {})).status, 200);
});
