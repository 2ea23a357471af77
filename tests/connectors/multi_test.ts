import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { serveSandbox } from "../../lib/sandbox/serve.ts";
import { Lab } from "./support/lab.ts";
import { closedPort, type HttpStub, httpStub, type StubRequest, until } from "./support/stubs.ts";

const ENTRY = new URL("./support/entry.ts", import.meta.url).pathname;
const DENO_CONFIG = new URL("../../deno.json", import.meta.url).pathname;

type Result = Record<string, unknown> | string | number;

/** What the server says of a job, call by call; the last again and again. */
type Results = readonly (Result | (() => Result))[];

interface ServerScript {
  readonly parent?: Results;
  /** Of the children, which get the ids c1, c2 ... */
  readonly children?: readonly Results[];
  /** In place of the answer to the nth submission, from 1. */
  readonly submit?: (n: number) => Response | undefined;
  readonly cancel?: (id: string) => Response;
  /** Path in front of the API. */
  readonly prefix?: string;
}

/** A server with three endpoints. Numbers stand for a status without words. */
function server(script: ServerScript = {}): HttpStub & { readonly auth: (string | null)[] } {
  const asked = new Map<string, number>();
  const auth: (string | null)[] = [];
  let submissions = 0;
  const prefix = script.prefix ?? "";
  const stub = httpStub(({ method, path }, raw) => {
    auth.push(raw.headers.get("authorization"));
    if (!path.startsWith(prefix)) return new Response("wrong path", { status: 404 });
    const [, , kind = "", id = "", action] = path.slice(prefix.length).split("/");
    if (method === "POST" && kind === "job" && id === "") {
      submissions++;
      return script.submit?.(submissions) ?? Response.json({ job_id: `c${submissions}` });
    }
    if (method === "POST" && action === "action") {
      return script.cancel?.(id) ?? new Response("OK");
    }
    const results = id === "parent"
      ? script.parent ?? [{ job_state: "provision" }]
      : script.children?.[Number(id.slice(1)) - 1] ?? ALLOCATED(id.slice(1));
    const n = asked.get(id) ?? 0;
    asked.set(id, n + 1);
    const scripted = results[Math.min(n, results.length - 1)] ?? 204;
    const result = typeof scripted === "function" ? scripted() : scripted;
    if (typeof result === "number") return new Response(null, { status: result });
    return typeof result === "string" ? new Response(result) : Response.json(result);
  });
  return Object.assign(stub, { auth });
}

const WAITING = { job_state: "waiting" };

/** Waiting, then allocated with the address 10.9.9.n. */
const ALLOCATED = (n: string | number): Results => [
  WAITING,
  { job_state: "allocated", device_info: { device_ip: `10.9.9.${n}`, agent_name: `d${n}` } },
];

const CHILD = { job_queue: "q", provision_data: { distro: "noble" } };

interface Setup {
  readonly jobs?: unknown;
  readonly job?: Record<string, unknown>;
  readonly config?: Record<string, unknown>;
}

async function prepare(lab: Lab, url: string | undefined, setup: Setup = {}): Promise<void> {
  await lab.config({ agent_name: "a1", testflinger_server: url, ...setup.config });
  await lab.job({
    job_id: "parent",
    provision_data: { jobs: setup.jobs ?? [CHILD, CHILD] },
    ...setup.job,
  });
}

function cancelled(requests: readonly StubRequest[]): string[] {
  return requests.filter(({ path }) => path.endsWith("/action")).map(({ path, body }) => {
    assertEquals(body, '{"action":"cancel"}');
    return path.split("/").at(-2) ?? "";
  }).sort();
}

function submitted(requests: readonly StubRequest[]): Record<string, unknown>[] {
  return requests.filter(({ method, path }) => method === "POST" && path.endsWith("/v1/job"))
    .map(({ body }) => JSON.parse(body));
}

async function message(lab: Lab, stage = "provision"): Promise<string> {
  const { exception_name: name, exception_message: message } = await lab.failure(stage);
  assertEquals(name, "ProvisioningError");
  return message ?? "";
}

/** An answer that does not come before the end of the test. */
function unanswered(): Disposable & { readonly answer: Promise<Response> } {
  const { promise, resolve } = Promise.withResolvers<Response>();
  return { answer: promise, [Symbol.dispose]: () => resolve(new Response()) };
}

const JOB_LIST = [
  { job_id: "c1", device_info: { device_ip: "10.9.9.1", agent_name: "d1" } },
  { job_id: "c2", device_info: { device_ip: "10.9.9.2", agent_name: "d2" } },
];

Deno.test("05-multi 1: the devices of all children are listed in their order", async () => {
  await using lab = await Lab.open();
  await using stub = server({ children: [[WAITING, ...ALLOCATED(1)], ALLOCATED(2)] });
  await prepare(lab, stub.url);
  assertEquals((await lab.stage("multi", "provision")).code, 0);
  assertEquals(await lab.json("job_list.json"), JOB_LIST);
  assertEquals(await lab.json("device-info.json"), { device_info: { agent_name: "a1" } });
  assertEquals(cancelled(stub.requests), []);
  assertEquals(lab.clock.paused, [10_000, 10_000, 10_000]);
});

Deno.test("a child that has printed megabytes is like any other", async () => {
  await using lab = await Lab.open();
  const results = ALLOCATED(1).map((result) => ({
    ...Object(result),
    provision_output: "y".repeat(10_000_000),
  }));
  await using stub = server({ children: [results, ALLOCATED(2)] });
  await prepare(lab, stub.url);
  assertEquals((await lab.stage("multi", "provision")).code, 0);
  assertEquals(await lab.json("job_list.json"), JOB_LIST);
});

Deno.test("the ids of the children are where scripts in the field look for them", async () => {
  await using lab = await Lab.open();
  await using stub = server();
  await prepare(lab, stub.url);
  const { stderr } = await lab.stage("multi", "provision");
  const find = new Deno.Command("sed", {
    args: ["-n", String.raw`s/^.*Created job \(.*\)$/\1/p`],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const input = find.stdin.getWriter();
  // A job's log has both streams in one.
  await input.write(new TextEncoder().encode(stderr));
  await input.close();
  const { stdout: ids } = await find.output();
  assertEquals(new TextDecoder().decode(ids), "c1\nc2\n");
});

Deno.test("all children are looked at in each round", async () => {
  await using lab = await Lab.open();
  const allocated = [ALLOCATED(1)[1] ?? ""];
  await using stub = server({ children: [allocated, allocated, allocated] });
  await prepare(lab, stub.url, { jobs: [CHILD, CHILD, CHILD] });
  assertEquals((await lab.stage("multi", "provision")).code, 0);
  assertEquals(lab.clock.elapsed, 10_000);
});

Deno.test("05-multi 2: a child is told to allocate, and who its parent is", async () => {
  await using lab = await Lab.open();
  await using stub = server();
  await prepare(lab, stub.url, { jobs: [{ ...CHILD, allocate_data: { x: 1 } }] });
  assertEquals((await lab.stage("multi", "provision")).code, 0);
  assertEquals(submitted(stub.requests), [
    { ...CHILD, allocate_data: { allocate: true }, parent_job_id: "parent" },
  ]);
});

Deno.test("05-multi 3: when a submission is refused, the children that are there are cancelled", async () => {
  await using lab = await Lab.open();
  await using stub = server({
    submit: (n) => n === 2 ? new Response("no such queue", { status: 422 }) : undefined,
  });
  await prepare(lab, stub.url);
  assertEquals((await lab.stage("multi", "provision")).code, 1);
  assertEquals(
    await message(lab),
    "Cannot submit jobs[1]: POST /v1/job: status 422: no such queue",
  );
  assertEquals(cancelled(stub.requests), ["c1"]);
  assertEquals(await lab.json("job_list.json"), [{ job_id: "c1", device_info: null }]);
});

Deno.test("answers to a submission that make no sense are like a refusal", async () => {
  for (const answer of ["<html>", "{}", '{"job_id": ""}', '{"job_id": 5}', ""]) {
    await using lab = await Lab.open();
    await using stub = server({ submit: (n) => n === 2 ? new Response(answer) : undefined });
    await prepare(lab, stub.url);
    assertEquals((await lab.stage("multi", "provision")).code, 1);
    assertStringIncludes(await message(lab), "an answer that makes no sense");
    assertStringIncludes(await message(lab), answer);
    assertEquals(cancelled(stub.requests), ["c1"]);
  }
});

Deno.test("a server that is not there, or never answers, is named with the step", async () => {
  await using lab = await Lab.open();
  await prepare(lab, `http://127.0.0.1:${closedPort()}`);
  assertEquals((await lab.stage("multi", "provision")).code, 1);
  assertMatch(await message(lab), /^Cannot submit jobs\[0\]: POST \/v1\/job: .*refused/i);

  const silent = unanswered();
  await using stub = httpStub(() => silent.answer);
  using _answered = silent;
  await prepare(lab, stub.url);
  lab.hang = () => stub.requests.length > 0;
  assertEquals((await lab.stage("multi", "provision")).code, 1);
  assertStringIncludes(await message(lab), "POST /v1/job: no answer within 15 s");
  assertEquals(lab.clock.elapsed, 15_000);
});

Deno.test("05-multi 4: when a child ends before it has a device, all are cancelled", async () => {
  for (
    const [end, words] of [
      [{ job_state: "completed", provision_status: 1, setup_status: 0 }, "phase provision ended"],
      [{ job_state: "complete", status: { provision: 46 } }, "its phase provision ended with 46"],
      [{ job_state: "cancelled" }, "'cancelled' before it got a device"],
    ] as const
  ) {
    await using lab = await Lab.open();
    await using stub = server({ children: [[WAITING], [WAITING, end]] });
    await prepare(lab, stub.url);
    assertEquals((await lab.stage("multi", "provision")).code, 1);
    assertStringIncludes(await message(lab), `The child job c2 is '${end.job_state}'`);
    assertStringIncludes(await message(lab), words);
    assertEquals(cancelled(stub.requests), ["c1", "c2"]);
    assertEquals(lab.clock.elapsed, 20_000);
  }
});

Deno.test("05-multi 5: when the job itself ends, its children are cancelled within one round", async () => {
  for (const state of ["cancelled", "complete", "completed"]) {
    await using lab = await Lab.open();
    await using stub = server({ parent: [{ job_state: state }], children: [[WAITING], [WAITING]] });
    await prepare(lab, stub.url);
    assertEquals((await lab.stage("multi", "provision")).code, 1);
    assertStringIncludes(await message(lab), `The job itself is '${state}'`);
    assertEquals(cancelled(stub.requests), ["c1", "c2"]);
    assertEquals(lab.clock.elapsed, 10_000);
  }
});

Deno.test("05-multi 6: children that wait too long are named with their states, and cancelled", async () => {
  await using lab = await Lab.open();
  await using stub = server({ children: [ALLOCATED(1), [WAITING], [503]] });
  await prepare(lab, stub.url, { jobs: [CHILD, CHILD, CHILD], job: { allocation_timeout: 30 } });
  assertEquals((await lab.stage("multi", "provision")).code, 1);
  assertEquals(
    await message(lab),
    "Not all child jobs got a device within 30 s: c2 is waiting, c3 is unknown (status 503)",
  );
  assertEquals(lab.clock.elapsed, 30_000);
  assertEquals(cancelled(stub.requests), ["c1", "c2", "c3"]);
});

Deno.test("a server that is away for a while, or says nothing yet, is asked again", async () => {
  await using lab = await Lab.open();
  const trouble = [204, 503, "<html>", "[]"];
  await using stub = server({
    parent: [503, "rubbish", 204],
    children: [[...trouble, ...ALLOCATED(1)], ALLOCATED(2)],
  });
  await prepare(lab, stub.url);
  assertEquals((await lab.stage("multi", "provision")).code, 0);
  assertEquals(await lab.json("job_list.json"), JOB_LIST);
  assertEquals(lab.clock.elapsed, 60_000);
});

Deno.test("without allocation_timeout the children have two hours", async () => {
  await using lab = await Lab.open();
  const hour = () => {
    lab.clock.elapsed += 3_600_000;
    return WAITING;
  };
  await using stub = server({ children: [[hour]] });
  await prepare(lab, stub.url, { jobs: [CHILD] });
  assertEquals((await lab.stage("multi", "provision")).code, 1);
  assertStringIncludes(await message(lab), "within 7200 s: c1 is waiting");
  assertEquals(lab.clock.paused, [10_000, 10_000]);
});

Deno.test("05-multi 7: tests get the addresses, the secrets and what all tests get", async () => {
  await using lab = await Lab.open();
  await prepare(lab, "http://127.0.0.1:1", {
    job: {
      test_data: {
        test_cmds:
          "echo $DEVICE_IP_1 $DEVICE_IP_2 $S $AGENT_NAME; echo $DEVICE_COUNT $JOB_ID_1 $JOB_ID_2",
        secrets: { S: "1" },
      },
    },
  });
  await lab.write("job_list.json", JSON.stringify(JOB_LIST));
  const { code, stdout } = await lab.stage("multi", "runtest");
  assertEquals(code, 0);
  assertEquals(stdout, "10.9.9.1 10.9.9.2 1 a1\n2 c1 c2\n");
});

Deno.test("tests run without the addresses that are not known", async () => {
  const cmds = "echo ${DEVICE_IP_1-none} ${DEVICE_IP_2-none} ${DEVICE_COUNT-none}; exit 3";
  for (
    const [list, printed] of [
      [
        '[{"job_id":"c1","device_info":null},{"job_id":"c2","device_info":{"device_ip":"h2"}}]',
        "none h2 2",
      ],
      ['[{"job_id":"c1"},{"job_id":"c2","device_info":{"device_ip":7}}]', "none none 2"],
      ["rubbish", "none none none"],
      ["{}", "none none none"],
      [undefined, "none none none"],
    ] as const
  ) {
    await using lab = await Lab.open();
    await prepare(lab, "http://127.0.0.1:1", { job: { test_data: { test_cmds: cmds } } });
    if (list !== undefined) await lab.write("job_list.json", list);
    const { code, stdout, stderr } = await lab.stage("multi", "runtest");
    assertEquals([code, stdout], [3, `${printed}\n`]);
    assertEquals(stderr.includes("job_list.json"), printed === "none none none");
  }
});

Deno.test("05-multi 8: cleanup cancels every child, also where one is over already", async () => {
  await using lab = await Lab.open();
  await using stub = server({
    cancel: (id) => new Response("over", { status: id === "c2" ? 400 : 200 }),
  });
  await prepare(lab, stub.url);
  await lab.write("job_list.json", JSON.stringify(JOB_LIST));
  const { code, stderr } = await lab.stage("multi", "cleanup");
  assertEquals(code, 0);
  assertEquals(cancelled(stub.requests), ["c1", "c2"]);
  assertEquals(stub.requests.length, 2);
  assert(!stderr.includes("Cannot cancel"));
});

Deno.test("cleanup goes on where a child cannot be cancelled, and says so", async () => {
  await using lab = await Lab.open();
  await using stub = server({
    cancel: (id) => new Response("oops", { status: id === "a%2F..%20b" ? 500 : 200 }),
  });
  await prepare(lab, stub.url);
  await lab.write("job_list.json", '[{"job_id": "a/.. b"}, {"job_id": "c2"}]');
  const { code, stderr } = await lab.stage("multi", "cleanup");
  assertEquals(code, 0);
  // The id is no path of its own.
  assertEquals(cancelled(stub.requests), ["a%2F..%20b", "c2"]);
  assertStringIncludes(stderr, "Cannot cancel the child job a/.. b: status 500: oops");
});

Deno.test("05-multi 9: a server that is missing, or no URL, is named by its key", async () => {
  for (const url of [undefined, "foo.com", "ftp://foo.com", 5, ""]) {
    await using lab = await Lab.open();
    await prepare(lab, undefined, { config: { testflinger_server: url } });
    assertEquals((await lab.stage("multi", "provision")).code, 1);
    assertStringIncludes(
      (await lab.failure("provision")).exception_message ?? "",
      "testflinger_server",
    );
  }
  await using lab = await Lab.open();
  await prepare(lab, "http://127.0.0.1:1", { config: { agent_name: null } });
  assertEquals((await lab.stage("multi", "provision")).code, 1);
  assertStringIncludes(await message(lab), "'agent_name' is missing");
});

Deno.test("05-multi 10: jobs that cannot be children are all named, and none is submitted", async () => {
  await using lab = await Lab.open();
  await using stub = server();
  await prepare(lab, stub.url, {
    jobs: [
      "junk",
      CHILD,
      { ...CHILD, provision_data: { jobs: [CHILD] } },
      { ...CHILD, test_data: { attachments: [{ agent: "x" }] } },
      { ...CHILD, test_data: { attachments: [] } },
    ],
  });
  assertEquals((await lab.stage("multi", "provision")).code, 1);
  const text = await message(lab);
  assertStringIncludes(text, "jobs[0] is not a job");
  assertStringIncludes(text, "jobs[2] has child jobs of its own");
  assertStringIncludes(text, "jobs[3] has attachments ('test_data.attachments')");
  assert(!text.includes("jobs[1]") && !text.includes("jobs[4]"));
  assertEquals(stub.requests, []);
});

Deno.test("a job without children has nothing to provision, which is a failure", async () => {
  for (const data of [null, {}, { jobs: [] }, { jobs: null }, { jobs: "x" }]) {
    await using lab = await Lab.open();
    await prepare(lab, "http://127.0.0.1:1", { job: { provision_data: data } });
    assertEquals((await lab.stage("multi", "provision")).code, 1);
    assertStringIncludes(await message(lab), "jobs");
  }
});

Deno.test("05-multi 11: SIGTERM cancels the child that is there, which stays listed", async () => {
  await using lab = await Lab.open();
  const second = unanswered();
  await using stub = httpStub(({ path, body }) => {
    if (path.endsWith("/action")) return new Response("OK");
    return JSON.parse(body).n === 2 ? second.answer : Response.json({ job_id: "c1" });
  });
  // Before the stub ends, which waits for its answers.
  using _answered = second;
  await prepare(lab, stub.url, { jobs: [{ ...CHILD, n: 1 }, { ...CHILD, n: 2 }] });
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--config", DENO_CONFIG, ENTRY]
      .concat(["multi", "provision", "-c", "c.yaml", "testflinger.json"]),
    cwd: lab.cwd,
    env: {
      ...lab.env(),
      DENO_DIR: Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno`,
    },
    clearEnv: true,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  await until(() => stub.requests.length === 2);
  child.kill("SIGTERM");
  assertEquals((await child.status).code, 143);
  assertEquals(cancelled(stub.requests), ["c1"]);
  assertEquals(await lab.json("job_list.json"), [{ job_id: "c1", device_info: null }]);
  assert(!await lab.has("device-connector-error.json"));
});

Deno.test("05-multi 12: cleanup without a list of children asks the server nothing", async () => {
  await using lab = await Lab.open();
  await using stub = server();
  await prepare(lab, stub.url);
  assertEquals((await lab.stage("multi", "cleanup")).code, 0);
  await lab.write("job_list.json", "[");
  assertEquals((await lab.stage("multi", "cleanup")).code, 0);
  assertEquals(stub.requests, []);
});

Deno.test("a path in the server's URL is kept", async () => {
  await using lab = await Lab.open();
  await using stub = server({ prefix: "/lab/tf" });
  await prepare(lab, `${stub.url}/lab/tf/`);
  assertEquals((await lab.stage("multi", "provision")).code, 0);
  assertEquals(stub.requests[0]?.path, "/lab/tf/v1/job");
});

Deno.test("a token from the environment or a file goes with every request", async () => {
  for (
    const [env, sent] of [
      [{}, null],
      [{ TESTFLINGER_TOKEN: "t0ken" }, "Bearer t0ken"],
      [{ TESTFLINGER_TOKEN_FILE: "token" }, "Bearer filed"],
    ] as const
  ) {
    await using lab = await Lab.open();
    await using stub = server();
    await prepare(lab, stub.url);
    const file = `${lab.root}/token`;
    await Deno.writeTextFile(file, "filed\n");
    const { code, stdout, stderr } = await lab.stage("multi", "provision", {
      env: "TESTFLINGER_TOKEN_FILE" in env ? { TESTFLINGER_TOKEN_FILE: file } : env,
    });
    assertEquals(code, 0);
    assertEquals(new Set(stub.auth), new Set([sent]));
    assert(!/t0ken|filed/.test(stdout + stderr));
  }
  await using lab = await Lab.open();
  await prepare(lab, "http://127.0.0.1:1");
  await lab.stage("multi", "provision", { env: { TESTFLINGER_TOKEN_FILE: "/nowhere" } });
  assertStringIncludes(await message(lab), "Cannot read the token file '/nowhere'");
});

Deno.test("a device that its child's result does not tell is null in the list", async () => {
  await using lab = await Lab.open();
  await using stub = server({ children: [[{ job_state: "allocated" }]] });
  await prepare(lab, stub.url, { jobs: [CHILD] });
  const { code, stderr } = await lab.stage("multi", "provision");
  assertEquals(code, 0);
  assertEquals(await lab.json("job_list.json"), [{ job_id: "c1", device_info: null }]);
  assertStringIncludes(stderr, "The device of the child job c1 is not known");
});

Deno.test("a server of either generation gives a parent the devices of its children", async () => {
  for (const generation of ["current", "legacy"] as const) {
    await using lab = await Lab.open();
    const { url, sandbox, close } = serveSandbox({ generation });
    const parent = sandbox.submit({ job_queue: "multi" });
    await prepare(lab, url, { job: { job_id: parent } });
    const post = (path: string, body: unknown) =>
      fetch(`${url}${path}`, {
        method: "POST",
        body: JSON.stringify(body),
        headers: { "content-type": "application/json" },
      }).then((answer) => answer.body?.cancel());
    // The agents of the children, as soon as those are there.
    let found = 0;
    sandbox.intercept(async (request, proceed) => {
      const answer = await proceed();
      if (request.method === "POST" && new URL(request.url).pathname === "/v1/job") {
        const { job_id: id } = await answer.clone().json();
        found++;
        await post(`/v1/result/${id}`, {
          job_state: "allocated",
          device_info: { device_ip: `10.9.9.${found}` },
        });
      }
      return answer;
    });
    assertEquals((await lab.stage("multi", "provision")).code, 0, generation);
    const list = await lab.json("job_list.json");
    // Written a line before; a test that finds something else in it fails below.
    const ids = (list as { job_id: string }[]).map(({ job_id: id }) => id);
    assertEquals(
      list,
      ids.map((job_id, n) => ({
        job_id,
        device_info: { device_ip: `10.9.9.${n + 1}` },
      })),
    );
    assertEquals(ids.map((id) => sandbox.job(id)?.["parent_job_id"]), [parent, parent]);
    assertEquals((await lab.stage("multi", "cleanup")).code, 0);
    assertEquals(ids.map((id) => sandbox.state(id)), ["cancelled", "cancelled"]);
    await close();
  }
});

Deno.test("stages of multi that have no device end at once", async () => {
  await using lab = await Lab.open();
  await prepare(lab, "http://127.0.0.1:1");
  assertEquals((await lab.stage("multi", "allocate")).code, 0);
  for (const stage of ["reserve", "firmware_update"]) {
    assertEquals((await lab.stage("multi", stage)).code, 1);
  }
  assertEquals(await lab.calls(), []);
});
