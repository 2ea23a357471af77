/** What an agent may not end outlives its job, and is named. */
import { assertEquals, assertMatch } from "@std/assert";
import { sharedBuild } from "../packaging/support/built.ts";
import { House } from "../support/house.ts";
import { AS_NOBODY, isRunning } from "../support/processes.ts";
import { NOBODY } from "../support/temp_folder.ts";

Deno.test({
  name: "a process that the agent may not end is named in its log, with what to do about it",
  ignore: Deno.uid() !== 0,
  async fn() {
    await using house = await House.open({});
    const { lab } = house;
    const { program, env } = await sharedBuild();
    // As sudo would, without its configuration.
    const sudo = house.at("sudo");
    await Deno.copyFile("/usr/bin/setpriv", sudo);
    const pidFile = house.at("pid");
    await house.configure({
      test_command: `${sudo} --reuid=0 --regid=0 --clear-groups sleep 1000 >/dev/null 2>&1 & ` +
        `echo $! >${pidFile}; until [ "$(cat /proc/$!/comm)" = sleep ]; do sleep 0.02; done`,
    });
    await new Deno.Command("chown", { args: ["-R", `${NOBODY}`, lab.folder] }).output();
    await new Deno.Command("chown", { args: ["root", sudo] }).output();
    await new Deno.Command("chmod", { args: ["4755", sudo] }).output();
    const jobId = lab.submit({ test_data: { a: 1 } });
    house.start({}, { program, env, through: AS_NOBODY, cwd: "/" });
    await lab.complete(jobId).catch((error) => {
      throw new Error(house.said, { cause: error });
    });
    assertEquals(lab.statuses(jobId), { test: 0 });
    const pid = Number(await Deno.readTextFile(pidFile));
    try {
      assertEquals(await isRunning(pid), true);
      await house.end("SIGTERM");
      assertMatch(
        house.said,
        new RegExp(
          ` ERROR .*Cannot end process ${pid} \\(sleep\\), which job ${jobId} left; it belongs to ` +
            "another user: end it by hand",
        ),
      );
    } finally {
      Deno.kill(pid, "SIGKILL");
    }
  },
});
