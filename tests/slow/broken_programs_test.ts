/** Each connector and stage with each program that it calls missing, failing, babbling, hanging. */
import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertStringIncludes,
} from "@std/assert";
import { STAGES } from "../../connectors/context.ts";
import { CONNECTOR_NAMES } from "../../connectors/registry.ts";
import { Lab } from "../connectors/support/lab.ts";
import { answerAll, assertNothingLeft, SCENES, titleOf } from "../connectors/support/scenes.ts";
import { httpStub } from "../connectors/support/stubs.ts";

/** What fails, to people: not our own mistakes, such as a TypeError. */
const ERRORS = ["FirmwareUpdateError", "MaasStorageError", "ProvisioningError", "RecoveryError"];

const BREAKAGES = {
  missing: undefined,
  failing: "echo 'boom: no such thing' >&2; exit 3",
  babbling: `printf '<html>\\377\\376{"a": [\\n'; exit 0`,
  hanging: "hang",
};

/** What a test's own program comes to. It may hang as long as the agent lets it. */
const TEST_STATUS: Readonly<Record<string, number>> = { missing: 127, failing: 3, babbling: 0 };

Deno.test("every stage of every connector is among those whose programs are broken here", () => {
  const missing = CONNECTOR_NAMES.flatMap((connector) =>
    STAGES.filter((stage) =>
      !SCENES.some((scene) => scene.connector === connector && scene.stage === stage)
    ).map((stage) => `${connector} ${stage}`)
  );
  assertEquals(missing, []);
});

for (const scene of SCENES) {
  const { connector, stage } = scene;
  const title = titleOf(scene);

  Deno.test(`${title} succeeds with ${scene.programs.join(", ") || "no program at all"}`, async () => {
    await using lab = await Lab.open();
    await using server = httpStub(answerAll);
    const host = await scene.prepare(lab, server.port);
    const env = scene.programs.length === 0 ? { PATH: `${lab.root}/nowhere` } : {};
    const run = await lab.stage(connector, stage, { env });
    assertEquals(run.code, 0, run.stderr);
    // All of them, and no other: whoever calls one more has to break that one here, too.
    const called = new Set((await lab.calls()).map(({ program }) => program));
    assertEquals([...called].sort(), [...scene.programs].sort());
    await assertNothingLeft(lab, host);
  });

  for (const program of scene.broken ?? scene.programs) {
    for (const [how, script] of Object.entries(BREAKAGES)) {
      if (stage === "runtest" && how === "hanging") continue;
      Deno.test(`${title} with ${program} ${how}`, async () => {
        await using lab = await Lab.open();
        await using server = httpStub(answerAll);
        const host = await scene.prepare(lab, server.port);
        if (script === undefined) await lab.remove(program);
        else await lab.fake(program, script);
        const run = await lab.stage(connector, stage);
        await assertNothingLeft(lab, host);
        if (stage === "runtest") {
          assertEquals(run.code, TEST_STATUS[how]);
          return;
        }
        if (scene.dispensable?.includes(program)) {
          assertEquals(run.code, 0, run.stderr);
          if (how !== "babbling" && !scene.silent?.includes(program)) {
            assertMatch(run.stderr, new RegExp(`WARNING: [^\\n]*'[^']*${program}[^']*'`));
          }
          return;
        }
        if (how === "babbling" && scene.mute?.includes(program)) {
          assertEquals(run.code, 0, run.stderr);
          return;
        }
        assertNotEquals(run.code, 0);
        const failure = await lab.failure(stage);
        assert(ERRORS.includes(failure.exception_name ?? ""), JSON.stringify(failure));
        assertEquals(run.code, failure.exception_name === "RecoveryError" ? 46 : 1);
        if (how !== "babbling") assertStringIncludes(failure.exception_message ?? "", program);
      });
    }
  }
}
