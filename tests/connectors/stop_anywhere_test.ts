/** A stage that is stopped while any of its programs runs, for every connector. */
import { assert, assertEquals } from "@std/assert";
import { Stopped } from "../../connectors/support/errors.ts";
import { processesWith } from "../../lib/process/proc.ts";
import { Lab } from "./support/lab.ts";
import { answerAll, SCENES, titleOf } from "./support/scenes.ts";
import { httpStub, until } from "./support/stubs.ts";

/** What shells add to a signal's number. */
const SIGTERM_STATUS = 143;

for (const scene of SCENES) {
  const { connector, stage, programs } = scene;
  // A reservation that is stopped has ended as it should; test commands are in stop_test.ts.
  if (stage === "reserve" || stage === "runtest") continue;
  // Putting back goes on for up to 30 s after a stop, so that is what would be waited for here.
  for (
    const program of connector === "cm3" ? programs.filter((name) => name !== "pdu") : programs
  ) {
    Deno.test(`${titleOf(scene)} that is stopped while ${program} runs ends at once, and leaves no process`, async () => {
      await using lab = await Lab.open();
      await using server = httpStub(answerAll);
      await scene.prepare(lab, server.port);
      // Its second call and those after it are what they always are: putting back may need them.
      await lab.wrap(
        program,
        `if [ ! -e "${lab.root}/reached" ]; then : > "${lab.root}/reached"; exec sleep 100000; fi`,
      );
      const stop = new AbortController();
      const running = lab.stage(connector, stage, { signal: stop.signal });
      let over = false;
      running.then(() => over = true);
      const isReached = () => Deno.stat(`${lab.root}/reached`).then(() => true, () => false);
      await until(async () => over || await isReached());
      assert(await isReached(), `${program} was not called`);
      stop.abort(new Stopped("SIGTERM"));
      const { code, stderr } = await running;
      assertEquals(code, SIGTERM_STATUS, stderr);
      assertEquals(await processesWith(`HOME=${lab.root}/home`), []);
      assert(!await lab.has("device-connector-error.json"), "a stop was recorded as a failure");
    });
  }
}
