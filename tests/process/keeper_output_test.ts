import { assertEquals, assertLess } from "@std/assert";
import { join } from "node:path";
import { OUTPUT_START } from "../../lib/process/kept_output.ts";
import { allProcesses } from "../../lib/process/proc.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { drained, Place, watch } from "./kept_support.ts";
import { joined, kill, Output, until } from "./support.ts";

Deno.test("output that has been read is removed, and a place in it is found again", async () => {
  await using place = await Place.make();
  const size = 80 * 1024 * 1024;
  const script = `head -c ${size} /dev/zero | tr '\\0' x; echo end`;
  using command = await place.start(script);
  await command.exit;
  let taken = OUTPUT_START;
  let bytes = 0;
  // Every 10 MB, another one goes on from where the last one was.
  for (let round = 0; bytes < size + 4; round++) {
    using reader = place.find(taken);
    let some = 0;
    for await (const chunk of reader.output) {
      some += chunk.length;
      taken = reader.place();
      reader.release(taken);
      if (some > 10_000_000) break;
    }
    bytes += some;
  }
  assertEquals(bytes, size + 4);
  const left = [...Deno.readDirSync(place.keeper)].filter(({ name }) => name.startsWith("output."));
  assertLess(left.length, 3);
});

Deno.test("a place some bytes back may be in an earlier file", async () => {
  await using place = await Place.make();
  // 1024 pieces make a file, whatever their size.
  using command = await place.start("i=0; while [ $i -lt 1500 ]; do echo $i; i=$((i+1)); done");
  await command.exit;
  using reader = place.find();
  const all: Uint8Array[] = [];
  for await (const chunk of reader.output) all.push(chunk.slice());
  const text = new TextDecoder().decode(joined(all));
  assertEquals(text, Array.from({ length: 1500 }, (_, i) => `${i}\n`).join(""));
  for (const back of [0, 1, 999, 2600, text.length]) {
    using again = place.find(reader.place(back));
    const rest: Uint8Array[] = [];
    for await (const chunk of again.output) rest.push(chunk.slice());
    assertEquals(new TextDecoder().decode(joined(rest)), text.slice(text.length - back));
  }
});

Deno.test("what is before the place of the last release is not needed to go on", async () => {
  await using place = await Place.make();
  const script = "printf abc; until [ -e go ]; do sleep 0.01; done; printf def";
  using command = await place.start(script);
  const reader = command.output.getReader();
  assertEquals(new TextDecoder().decode((await reader.read()).value), "abc");
  using found = place.find(command.place(1));
  await Deno.writeTextFile(place.path("go"), "");
  const rest: Uint8Array[] = [];
  for await (const chunk of found.output) rest.push(chunk.slice());
  assertEquals(new TextDecoder().decode(joined(rest)), "cdef");
});

Deno.test("silence counts from the last byte, also of one that another process has read", async () => {
  await using place = await Place.make();
  const clock = new FakeClock();
  const running = watch(await place.start("sleep 100"), new Output(), {
    clock,
    limits: { silenceMs: 9_000 },
    silentForMs: 8_000,
  });
  await until("it is watched", () => clock.sleepers > 0);
  await clock.advance(1_000);
  assertEquals(await running, {
    ended: "limit",
    limit: "silence",
    exit: { kind: "signal", signal: 15 },
  });
});

Deno.test("where what writes the output is killed, it is said, and the rest comes", async () => {
  await using place = await Place.make();
  const output = new Output();
  let losses = 0;
  const running = watch(
    await place.start("echo up; until [ -e go ]; do sleep 0.01; done; echo end"),
    output,
    { onLoss: () => losses++ },
  );
  await output.has("up\n");
  const keeper = Number((await Deno.readTextFile(join(place.keeper, "keeper"))).split(" ")[1]);
  const writer = (await allProcesses()).find(({ session, name }) =>
    session === keeper && name === "dd"
  );
  kill(writer!.pid);
  await until("the loss is noted", () => losses > 0);
  await Deno.writeTextFile(place.path("go"), "");
  assertEquals(await running, { ended: "exited", exit: { kind: "code", code: 0 } });
  assertEquals([output.text, losses], ["up\nend\n", 1]);
});

Deno.test("a host that is slow to write costs no output, however long that takes", async () => {
  await using place = await Place.make();
  const clock = new FakeClock();
  const output = new Output();
  const script = "echo up; until [ -e go ]; do sleep 0.01; done; sleep 1000 & echo late";
  const running = watch(await place.start(script), output, { clock });
  await output.has("up\n");
  const keeper = Number((await Deno.readTextFile(join(place.keeper, "keeper"))).split(" ")[1]);
  const writer = (await allProcesses()).find(({ session, name }) =>
    session === keeper && name === "dd"
  );
  Deno.kill(writer!.pid, "SIGSTOP");
  await Deno.writeTextFile(place.path("go"), "");
  await until(
    "the command has ended",
    async () => (await Deno.readTextFile(join(place.keeper, "status"))).trim() !== "",
  );
  await until("it drains", () => clock.sleepers > 0);
  await clock.advance(2_000);
  assertEquals(output.text, "up\n");
  Deno.kill(writer!.pid, "SIGCONT");
  assertEquals(await running, { ended: "exited", exit: { kind: "code", code: 0 } });
  assertEquals(output.text, "up\nlate\n");
});

Deno.test("a command may print anything, also what nearly ends its output", async () => {
  await using place = await Place.make();
  const output = new Output();
  // Each time the beginning of the mark stands at the end of a piece.
  const script = "end=$(cat keeper/end); printf 'a\\001'; sleep 0.1; printf \"\\001${end%??}\"; " +
    "sleep 0.1; printf 'b\\001'";
  const command = await place.start(script);
  await watch(command, output);
  const end = await Deno.readTextFile(join(place.keeper, "end"));
  assertEquals(output.text, `a\x01\x01${end.slice(0, -2)}b\x01`);
});

Deno.test("what a kept command leaves behind holds nothing up and may print on", async () => {
  await using place = await Place.make();
  const clock = new FakeClock();
  const script = "(while [ ! -e stop ]; do echo more; sleep 0.01; done; echo $? >ended) & echo up";
  const running = watch(await place.start(script), new Output(), { clock });
  assertEquals(await drained(running, clock), { ended: "exited", exit: { kind: "code", code: 0 } });
  assertEquals(
    [...Deno.readDirSync(place.keeper)].filter(({ name }) => name.startsWith("output.")),
    [],
  );
  await Deno.writeTextFile(place.path("stop"), "");
  await until(
    "it ends by itself",
    async () => await Deno.readTextFile(place.path("ended")).catch(() => "") === "0\n",
  );
});

Deno.test("a daemon that prints without end after its phase fills no disk", async () => {
  await using place = await Place.make();
  const clock = new FakeClock();
  const script = "(exec yes) & sleep 0.1";
  const command = await place.start(script);
  const keeper = Number((await Deno.readTextFile(join(place.keeper, "keeper"))).split(" ")[1]);
  await drained(watch(command, new Output(), { clock }), clock);
  // What goes on is `cat >/dev/null`, and no file comes any more.
  await until("it is thrown away", async () => {
    const names = (await allProcesses()).filter(({ session, dead }) => session === keeper && !dead)
      .map(({ name }) => name);
    return names.includes("cat") && !names.includes("dd");
  });
});

Deno.test("a kept command waits when 256 MiB of its output are unread", async () => {
  await using place = await Place.make();
  using command = await place.start("head -c 600000000 /dev/zero; echo end >ended");
  const size = async () => {
    let all = 0;
    for await (const { name } of Deno.readDir(place.keeper)) {
      all += (await Deno.stat(join(place.keeper, name))).size;
    }
    return all;
  };
  await until("it has printed much", async () => await size() > 256 * 1024 * 1024);
  const keeper = Number((await Deno.readTextFile(join(place.keeper, "keeper"))).split(" ")[1]);
  await until(
    "it is held up",
    async () =>
      (await allProcesses()).some(({ session, name }) => session === keeper && name === "sleep"),
  );
  assertLess(await size(), 330 * 1024 * 1024);
  let bytes = 0;
  for await (const chunk of command.output) {
    bytes += chunk.length;
    command.release(command.place());
  }
  assertEquals(bytes, 600_000_000);
  assertEquals(await command.exit, { kind: "code", code: 0 });
});

Deno.test("`> /dev/stdout` truncates nothing", async () => {
  await using place = await Place.make();
  const output = new Output();
  await watch(await place.start("echo one; echo two > /dev/stdout; echo three"), output);
  assertEquals(output.text, "one\ntwo\nthree\n");
});
