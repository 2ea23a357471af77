import { assertEquals, assertRejects } from "@std/assert";
import { once, Said } from "../lib/once.ts";

Deno.test("a fact is found out once for all who ask, and one that is not found is looked for again", async () => {
  const asked: (string | undefined)[] = [];
  const fact = once((name: string | undefined) => {
    asked.push(name);
    return asked.length === 1 ? Promise.reject(new Error("not now")) : Promise.resolve(`${name}!`);
  });
  await assertRejects(() => fact("a"), Error, "not now");
  assertEquals(await Promise.all([fact("a"), fact("a"), fact(undefined)]), [
    "a!",
    "a!",
    "undefined!",
  ]);
  assertEquals(await fact("a"), "a!");
  assertEquals(asked, ["a", "a", undefined]);
});

Deno.test("Said says what is new of a matter: once, when it changes, and again when it was over", () => {
  const said = new Said();
  assertEquals([said.isNew("disk", "full"), said.isNew("disk", "full")], [true, false]);
  assertEquals([said.isNew("disk", "gone"), said.isNew("host", "gone")], [true, true]);
  assertEquals([said.forget("disk"), said.forget("disk")], [true, false]);
  assertEquals([said.isNew("disk", "gone"), said.isNew("host", "gone")], [true, false]);
});
