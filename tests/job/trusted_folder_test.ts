import { assertEquals, assertStringIncludes } from "@std/assert";
import { examineFolder } from "../../lib/job/trusted_folder.ts";
import { IS_ROOT, NOBODY, TempFolder } from "../support/temp_folder.ts";

/** Folders below one that is as `/tmp` is. */
function below(folder: TempFolder, ...names: string[]): string {
  Deno.chmodSync(folder.path, 0o1777);
  const path = folder.at(...names);
  Deno.mkdirSync(path, { recursive: true });
  return path;
}

const US = Deno.uid() ?? 0;

Deno.test("folders of ours below one that is everybody's are trusted", async () => {
  await using folder = new TempFolder();
  assertEquals(examineFolder(below(folder, "testflinger", "run"), US), { open: [] });
});

Deno.test("a folder below /tmp that another user made first is not, nor what is in it", {
  ignore: !IS_ROOT,
}, async () => {
  await using folder = new TempFolder();
  const run = below(folder, "testflinger", "run");
  await Deno.chown(folder.at("testflinger"), NOBODY, NOBODY);
  const { refusal = "" } = examineFolder(run, US);
  assertStringIncludes(refusal, `${folder.at("testflinger")} belongs to user ${NOBODY}`);
});

Deno.test("what root made is trusted by every user, what another one made by none", {
  ignore: !IS_ROOT,
}, async () => {
  await using folder = new TempFolder();
  const run = below(folder, "run");
  assertEquals(examineFolder(run, NOBODY), { open: [] });
  await Deno.chown(run, NOBODY, NOBODY);
  assertEquals(examineFolder(run, NOBODY), { open: [] });
  assertStringIncludes(examineFolder(run, 1).refusal ?? "", `belongs to user ${NOBODY}`);
});

Deno.test("a link of another user's below /tmp is not followed, one of ours is", {
  ignore: !IS_ROOT,
}, async () => {
  await using folder = new TempFolder();
  below(folder, "real", "run");
  const link = folder.at("link");
  await Deno.symlink("real", link);
  assertEquals(examineFolder(`${link}/run`, US), { open: [] });
  await new Deno.Command("chown", { args: ["-h", `${NOBODY}`, link] }).output();
  assertStringIncludes(examineFolder(`${link}/run`, US).refusal ?? "", `${link} belongs to user`);
});

Deno.test("a link of ours is followed to where it leads, and that is looked at, too", {
  ignore: !IS_ROOT,
}, async () => {
  await using folder = new TempFolder();
  const theirs = below(folder, "theirs");
  await Deno.chown(theirs, NOBODY, NOBODY);
  below(folder, "deep");
  await Deno.symlink(theirs, folder.at("absolute"));
  await Deno.symlink("deep/../theirs", folder.at("relative"));
  for (const name of ["absolute", "relative"]) {
    const { refusal = "" } = examineFolder(folder.at(name), US);
    assertStringIncludes(refusal, `${theirs} belongs to user`);
  }
});

Deno.test("links in a circle are no folder to be trusted", async () => {
  await using folder = new TempFolder();
  await Deno.symlink("b", folder.at("a"));
  await Deno.symlink("a", folder.at("b"));
  assertStringIncludes(examineFolder(folder.at("a"), US).refusal ?? "", "too many links");
});

Deno.test("a folder that everybody may write to is named, unless they may only add to it", async () => {
  await using folder = new TempFolder();
  const run = below(folder, "run");
  await Deno.chmod(run, 0o777);
  assertEquals(examineFolder(run, US), { open: [run] });
  await Deno.chmod(run, 0o1777);
  assertEquals(examineFolder(run, US), { open: [] });
});
