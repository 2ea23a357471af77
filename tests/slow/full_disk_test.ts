/** Each connector and stage on a disk that is full: from the start, and at each of its writes. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { startSerialLogger } from "../../connectors/support/serial/serial_logger.ts";
import { mayMount, type Room, SmallDisk } from "../support/small_disk.ts";
import { inStage } from "../connectors/support/context.ts";
import { Lab, type Run } from "../connectors/support/lab.ts";
import {
  answerAll,
  assertNothingLeft,
  type Scene,
  SCENES,
  titleOf,
} from "../connectors/support/scenes.ts";
import { httpStub, type StubRequest, tcpStub, until } from "../connectors/support/stubs.ts";

/** More than any stage needs here, so that one that never succeeds is seen. */
const ENOUGH = 40;

/** What may be in the job's folder when a stage has failed. */
const KEPT = [
  "attachments",
  "c.yaml",
  "testflinger.json",
  "device-info.json",
  "device-connector-error.json",
  "job_list.json",
  // For a person to look at.
  "meta-data",
  "user-data",
];

/** An image whose length nobody knows, so that nobody can say beforehand that it is too long. */
function answer(request: StubRequest, raw: Request): Response | Promise<Response> {
  if (request.path !== "/image") return answerAll(request, raw);
  return new Response(new Blob([new Uint8Array(10_000)]).stream());
}

/** Neither a trace nor a riddle: what could not be done, and that it is the disk. */
function assertSaysIsFull(stage: string, { code, stderr }: Run): void {
  assertEquals(code, 1, stderr);
  assertMatch(stderr, / ERROR: [^\n]*Cannot [^\n]*: [^\n]*No space left on device/, stage);
  assert(!/^\s+at /m.test(stderr) && !stderr.includes("os error"), stderr);
}

/** Of connectors that share a stage, the ones that have it tried at each of its writes. */
function isSwept({ connector, isCommon }: Scene): boolean {
  if (isCommon) return connector === "noprovision";
  return !["lenovo_oemscript", "oemscript"].includes(connector);
}

for (const scene of SCENES) {
  const { connector, stage } = scene;
  for (const kind of isSwept(scene) ? ["blocks", "files"] : ["blocks"]) {
    const most = isSwept(scene) ? ENOUGH : 0;
    Deno.test({
      name: `${titleOf(scene)} ends clearly on a disk that has no ${kind} left` +
        (most === 0 ? "" : ", whichever write is the first to fail"),
      ignore: !mayMount,
      async fn() {
        for (let left = 0; left <= most; left++) {
          await using lab = await Lab.open();
          await using disk = await SmallDisk.mount(lab.cwd);
          await using server = httpStub(answer);
          const host = await scene.prepare(lab, server.port);
          await disk.leave({ [kind]: left });
          const run = await lab.stage(connector, stage);
          await assertNothingLeft(lab, host);
          if (run.code === 0 && !run.stderr.includes("No space left")) return;
          if (run.code === 0) continue;
          assertSaysIsFull(stage, run);
          for await (const { name } of Deno.readDir(lab.cwd)) {
            assert(KEPT.includes(name) || SmallDisk.isFiller(name), `${name} is left`);
          }
        }
        assertEquals(most, 0, "the stage did not succeed with any amount of room");
      },
    });
  }
}

/** Runs `test` in a lab whose job folder is full, but for a little. */
function onDisk(name: string, room: Room, test: (lab: Lab) => Promise<void>): void {
  Deno.test({
    name,
    ignore: !mayMount,
    async fn() {
      await using lab = await Lab.open();
      await using disk = await SmallDisk.mount(lab.cwd);
      await lab.config({});
      await lab.job({});
      await disk.leave(room);
      await test(lab);
    },
  });
}

for (
  const [kind, room] of Object.entries({ files: { files: 1 }, blocks: { blocks: 1 } })
) {
  onDisk(
    `a serial log that finds no ${kind} left is given up, and the stage goes on`,
    room,
    async (lab) => {
      await using serial = tcpStub((client) => void client.write(new TextEncoder().encode("said")));
      await inStage(lab, async (ctx) => {
        const config = { ...ctx.config, serial_host: "127.0.0.1", serial_port: serial.port };
        await using _log = await startSerialLogger({ ...ctx, config }, "provision-serial.log");
        await until(() => lab.log.some((line) => line.includes("Serial log")));
      });
      assertStringIncludes(
        lab.log.join("\n"),
        "WARNING: DEVICE CONNECTOR: Serial log: Cannot write provision-serial.log: No space left",
      );
    },
  );
}
