/** A job may put anything into its own folder, from inside a container, say. */
import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { Lab } from "../support/lab.ts";

const PRECIOUS = "ssh-ed25519 AAAA administrator\n";

async function withVictim(
  config: Record<string, unknown>,
  test: (lab: Lab, victim: string) => Promise<void>,
): Promise<void> {
  await using lab = await Lab.open({ config });
  const victim = join(lab.folder, "victim");
  await Deno.writeTextFile(victim, PRECIOUS);
  await test(lab, victim);
  assertEquals(await Deno.readTextFile(victim), PRECIOUS);
}

Deno.test("a phase's log is not written through a link, and the server has it all the same", () =>
  withVictim({
    setup_command: "ln -s ../../victim test.log",
    test_command: "echo ssh-ed25519 of a stranger",
  }, async (lab) => {
    const jobId = await lab.run({ test_data: { a: 1 } });
    assertEquals(lab.output(jobId, "test"), "ssh-ed25519 of a stranger\n");
    assertEquals(lab.statuses(jobId), { setup: 0, test: 0 });
  }));

Deno.test("a FIFO in the place of a phase's log, outcome, error or serial log holds nothing up", () =>
  withVictim({
    setup_command: "rm -f testflinger-outcome.json device-connector-error.json; " +
      "mkfifo test.log testflinger-outcome.json device-connector-error.json device-info.json " +
      "test-serial.log",
    test_command: "echo done; exit 3",
    cleanup_command: "echo cleaned",
  }, async (lab) => {
    const jobId = await lab.run({ test_data: { a: 1 } });
    assertEquals(lab.statuses(jobId), { setup: 0, test: 3, cleanup: 0 });
    assertEquals(lab.output(jobId, "test"), "done\n");
  }));

Deno.test("the outcome is not written through a link", () =>
  withVictim({
    setup_command: "ln -sf ../../victim testflinger-outcome.json",
    test_command: "true",
  }, async (lab) => {
    const jobId = await lab.run({ test_data: { a: 1 } });
    assertEquals(lab.statuses(jobId), { setup: 0, test: 0 });
  }));

Deno.test("what a link of the serial log, the error or the device's information leads to is not sent", () =>
  withVictim({
    setup_command: [
      `echo '{"device_info": {"stolen": 1}}' > ../info`,
      `echo '{"test_exception_info": {"exception_name": "stolen"}}' > ../error`,
      "ln -s ../../victim test-serial.log",
      "ln -s ../info device-info.json",
      "ln -sf ../error device-connector-error.json",
    ].join("; "),
    test_command: "false",
  }, async (lab) => {
    const jobId = await lab.run({
      job_status_webhook: "http://127.0.0.1:9/hook",
      test_data: { a: 1 },
    });
    assertEquals(lab.sandbox.log(jobId, "serial"), "");
    const sent = JSON.stringify([lab.sandbox.result(jobId), lab.sandbox.events(jobId)]);
    assertEquals(sent.includes("stolen"), false, sent);
  }));

Deno.test("a connector's error that is not what it should be is told as it is, and fails no job", () =>
  withVictim({
    test_command: `cat > device-connector-error.json <<'END'
{"test_exception_info": {"exception_name": {"toString": 1, "valueOf": 1},
  "exception_message": ["a"], "exception_cause": 5}}
END
exit 1`,
  }, async (lab) => {
    const jobId = await lab.run({
      job_status_webhook: "http://127.0.0.1:9/hook",
      test_data: { a: 1 },
    });
    const failure = lab.sandbox.events(jobId).find(({ event_name }) => event_name === "test_fail");
    assertEquals(failure?.detail, '{"toString":1,"valueOf":1}: ["a"] caused by 5');
    assertEquals(lab.statuses(jobId), { test: 1 });
  }));
