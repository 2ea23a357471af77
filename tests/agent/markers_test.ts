import { assertEquals, assertStringIncludes } from "@std/assert";
import { Markers } from "../../lib/agent/markers.ts";
import { recordingLog } from "../support/recording_log.ts";
import { IS_ROOT, makeFifo, NOBODY, TempFolder } from "../support/temp_folder.ts";

const US = Deno.uid() ?? 0;

function markersIn(folder: TempFolder, uid = US) {
  const log = recordingLog();
  const markers = new Markers({ agentId: "rpi-4", log, folder: folder.path, uid });
  const offline = folder.at("TESTFLINGER-DEVICE-OFFLINE-rpi-4");
  const restart = folder.at("TESTFLINGER-DEVICE-RESTART-rpi-4");
  return { markers, log, offline, restart };
}

Deno.test("markers count with the agent's id as it is, and without its dashes", async () => {
  await using folder = new TempFolder();
  const { markers } = markersIn(folder);
  assertEquals(markers.wantsRestart(), false);
  assertEquals(markers.offlineComment(), undefined);
  for (const id of ["rpi-4", "rpi4"]) {
    const path = folder.at(`TESTFLINGER-DEVICE-RESTART-${id}`);
    await Deno.writeTextFile(path, "");
    assertEquals(markers.wantsRestart(), true);
    assertEquals(await markers.removeRestart(), true);
    assertEquals(markers.wantsRestart(), false);
  }
});

Deno.test("a marker is seen at once in a folder that has long been without one", async () => {
  await using folder = new TempFolder();
  const { markers, offline, restart } = markersIn(folder);
  const longAgo = new Date(Date.now() - 3_600_000);
  for (const make of [() => Deno.writeTextFile(restart, ""), () => Deno.rename(offline, restart)]) {
    await Deno.writeTextFile(offline, "");
    await Deno.remove(restart).catch(() => {});
    await Deno.utime(folder.path, longAgo, longAgo);
    for (let look = 0; look < 3; look++) assertEquals(markers.wantsRestart(), false);
    await make();
    assertEquals(markers.wantsRestart(), true);
  }
});

Deno.test("of an offline marker the first line is the comment, and no more than a comment is read", async () => {
  await using folder = new TempFolder();
  const { markers, offline } = markersIn(folder);
  await Deno.writeTextFile(offline, "  bench power off \nmore\n");
  assertEquals(markers.offlineComment(), "bench power off");
  await Deno.writeTextFile(offline, "x".repeat(5000));
  assertEquals(markers.offlineComment(), "x".repeat(1024));
  await Deno.writeTextFile(offline, "");
  assertEquals(markers.offlineComment(), "");
});

const TRAPS: Record<string, (path: string, victim: string) => Promise<void>> = {
  "a link": (path, victim) => Deno.symlink(victim, path),
  "a second name of another file": (path, victim) => Deno.link(victim, path),
  "a FIFO": (path) => makeFifo(path),
  "a folder": (path) => Deno.mkdir(path),
};

for (const [what, lay] of Object.entries(TRAPS)) {
  Deno.test(`${what} is no marker, is reported once, and again when it was gone meanwhile`, async () => {
    await using folder = new TempFolder();
    const { markers, log, offline, restart } = markersIn(folder);
    const victim = folder.at("victim");
    await Deno.writeTextFile(victim, "precious\n");
    for (const path of [offline, restart]) await lay(path, victim);
    for (let round = 0; round < 3; round++) {
      assertEquals(markers.offlineComment(), undefined);
      assertEquals(markers.wantsRestart(), false);
      assertEquals(await markers.removeRestart(), true);
    }
    assertEquals(log.lines.length, 2);
    assertStringIncludes(log.lines[0]?.message ?? "", `The marker ${offline} is ignored`);
    assertEquals(log.lines.some(({ message }) => message.includes("precious")), false);

    await Deno.remove(offline);
    markers.offlineComment();
    await lay(offline, victim);
    markers.offlineComment();
    assertEquals(log.lines.length, 3);
  });
}

Deno.test("a marker counts only if it belongs to root or to the agent's user", {
  ignore: !IS_ROOT,
}, async () => {
  await using folder = new TempFolder();
  const asNobody = markersIn(folder, NOBODY);
  await Deno.writeTextFile(asNobody.restart, "");
  assertEquals(await asNobody.markers.wantsRestart(), true, "root's");
  await Deno.chown(asNobody.restart, NOBODY, NOBODY);
  assertEquals(await asNobody.markers.wantsRestart(), true, "its own");
  await Deno.chown(asNobody.restart, 1, 1);
  assertEquals(await asNobody.markers.wantsRestart(), false, "another user's");
  assertStringIncludes(asNobody.log.lines[0]?.message ?? "", "belongs to user 1");
});
