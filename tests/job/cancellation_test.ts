import { assert, assertEquals } from "@std/assert";
import { CancellationWatch } from "../../lib/job/cancellation.ts";
import { Connectivity } from "../../lib/server/connectivity.ts";
import { connect, JOB_ID, json, type Reply, serve, until } from "../server/support/http.ts";

/** A watch on a job of which a test says what the server answers, and when. */
function watched(answer: (path: string) => Reply) {
  const server = serve(({ path }) => answer(path));
  const link = connect(server);
  const { client, clock, log } = link;
  const connectivity = new Connectivity(clock, log);
  const watch = new CancellationWatch({ server: client, connectivity, clock, jobId: JOB_ID });
  return {
    clock,
    server,
    watch,
    /** Moves the time on, and says how many more requests came of it once nothing is on its way. */
    async asksWithin(ms: number): Promise<number> {
      const before = server.seen.length;
      await clock.advance(ms);
      // A request that is on its way has a limit of 30 s, which no pause comes near.
      const isInFlight = ({ nextDue = 0 }) => nextDue > 10_000 && nextDue <= 30_000;
      await until(() => clock.sleepers === 1 && !isInFlight(clock));
      return server.seen.length - before;
    },
    async [Symbol.asyncDispose]() {
      await watch[Symbol.asyncDispose]();
      link.client.close();
      await server[Symbol.asyncDispose]();
    },
  };
}

const noStatus = () => new Response("Not found", { status: 404 });

Deno.test("a server that can be asked for the state alone is asked each second, and for nothing else", async () => {
  await using scene = watched(() => json({ job_state: "test", test_status: 0 }));
  for (let i = 0; i < 5; i++) assertEquals(await scene.asksWithin(1000), 1);
  assertEquals(new Set(scene.server.seen.map(({ path }) => path)).size, 1);
  assert(scene.server.seen[0]?.path.endsWith("/status"));
});

Deno.test("a server that has only the whole result is asked the less often the larger it is, at most every 10 s", async () => {
  let log = "";
  await using scene = watched((path) =>
    path.endsWith("/status") ? noStatus() : json({ job_state: "test", test_output: log })
  );
  // That there is no such endpoint is learned once.
  assertEquals(await scene.asksWithin(1000), 2);
  assertEquals(await scene.asksWithin(1000), 1);
  log = "x".repeat(4 * 1024 * 1024);
  assertEquals(await scene.asksWithin(1000), 1);
  assertEquals(await scene.asksWithin(3900), 0);
  assertEquals(await scene.asksWithin(200), 1);
  log = "x".repeat(40 * 1024 * 1024);
  assertEquals(await scene.asksWithin(4100), 1);
  assertEquals(await scene.asksWithin(9700), 0);
  assertEquals(await scene.asksWithin(500), 1);
});

Deno.test("a server that takes its time for the answer is asked the less often, at most every 10 s", async () => {
  const held: ((reply: Response) => void)[] = [];
  await using scene = watched(() => new Promise((resolve) => held.push(resolve)));
  const { clock } = scene;
  const pauses: [answerMs: number, pauseMs: number][] = [[0, 1000], [300, 3000], [15_000, 10_000]];
  let beforeMs = 1000;
  for (const [answerMs, pauseMs] of pauses) {
    await clock.advance(beforeMs);
    await until(() => held.length > 0);
    await clock.advance(answerMs);
    held.pop()?.(json({ job_state: "test" }));
    await until(() => clock.sleepers === 1 && clock.nextDue === pauseMs);
    beforeMs = pauseMs;
  }
});

Deno.test("a server that asks for a year's patience is asked again within a minute", async () => {
  let isBusy = true;
  await using scene = watched(() =>
    isBusy
      ? new Response(null, { status: 503, headers: { "Retry-After": "999999999" } })
      : json({ job_state: "cancelled" })
  );
  assertEquals(await scene.asksWithin(1000), 1);
  isBusy = false;
  await scene.clock.advance(61_000);
  await until(() => scene.watch.isCancelled);
});

Deno.test("a server that learns to be asked for the state alone is asked so after an hour, or after it was away", async () => {
  let hasStatus = false;
  let isAway = false;
  await using scene = watched((path) => {
    if (isAway) return new Response(null, { status: 502 });
    if (path.endsWith("/status") && !hasStatus) return noStatus();
    return json({ job_state: "test" });
  });
  assertEquals(await scene.asksWithin(1000), 2);
  hasStatus = true;
  assertEquals(await scene.asksWithin(1000), 1);
  assert(!scene.server.seen.at(-1)?.path.endsWith("/status"));
  isAway = true;
  await scene.asksWithin(1000);
  isAway = false;
  await scene.asksWithin(200_000);
  assert(scene.server.seen.at(-1)?.path.endsWith("/status"));
});
