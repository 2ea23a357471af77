import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { parse } from "yaml";
import { Stopped } from "../../connectors/support/errors.ts";
import { incompressible } from "../support/disk_images.ts";
import { Lab } from "./support/lab.ts";
import { slowImages } from "./support/slow_link.ts";
import { type HttpStub, httpStub, until } from "./support/stubs.ts";

const IMAGE = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 251);

/** More than pipes hold, also when it is packed. */
const NOISE = incompressible(2_000_000);

const CONFIG = {
  agent_name: "a1",
  device_ip: "10.1.1.1",
  test_device: "/dev/mmcblk1",
  snappy_writable_partition: "/dev/mmcblk1p3",
  reboot_script: ["echo reset >> resets; cat after_reset > up"],
  select_master_script: ["echo master > after_reset"],
  select_test_script: ["echo test > after_reset"],
};

/** A board: the file `up` says which system runs, `after_reset` which one is next. */
async function openBoard(
  options: { up?: string; image?: Uint8Array<ArrayBuffer>; answers?: Record<string, string> } = {},
): Promise<{ lab: Lab; images: HttpStub } & AsyncDisposable> {
  const { up = "master", image = IMAGE, answers = {} } = options;
  const lab = await Lab.open();
  const images = httpStub(() => new Response(image));
  await lab.config(CONFIG);
  await lab.job({ provision_data: { url: `${images.url}/i.img` } });
  await lab.write("up", up);
  await lab.write("after_reset", "master");
  for (const program of ["unxz", "xz", "zstdcat", "zcat"]) {
    await Deno.symlink(`/usr/bin/${program}`, join(lab.root, "bin", program)).catch(() => {});
  }
  const own = Object.entries(answers).map(([word, script]) => `  *"${word}"*) ${script} ;;`);
  await lab.fake(
    "ssh",
    `case "$*" in *"-O exit"*) exit 0 ;; esac
for command; do :; done
case "$*" in *linaro@*) as=master ;; *) as=test ;; esac
[ "$(cat ${lab.cwd}/up)" = "$as" ] || { echo "No route to host" >&2; exit 255; }
case "$command" in
${own.join("\n")}
  *os-release) if [ $as = master ]; then echo ID=debian; else echo ID=ubuntu-core; fi ;;
  *"dd of="*) cat > ${lab.cwd}/card; echo "1+0 records out" >&2 ;;
  ls*) echo "boot system-data" ;;
  *"cat > "*) cat > "${lab.cwd}/written-$n" ;;
  */sbin/reboot) cat ${lab.cwd}/after_reset > ${lab.cwd}/up; exit 255 ;;
esac`,
  );
  return {
    lab,
    images,
    async [Symbol.asyncDispose]() {
      await images[Symbol.asyncDispose]();
      await lab[Symbol.asyncDispose]();
    },
  };
}

/** In the words of a shell: what the master image gets to run, on a card that is a file here. */
const REALLY = 'eval "$(printf "%s" "$command" | sed "s#/dev/mmcblk1#card#g")"';

/** A board whose master image has the programs by which a card is read back. */
async function openReadingBoard(
  { image = IMAGE, synced = ":" }: { image?: Uint8Array<ArrayBuffer>; synced?: string } = {},
) {
  const scene = await openBoard({
    image,
    answers: { "command -v": REALLY, "dd of=": REALLY, "hdparm -f": REALLY, "sync": synced },
  });
  const { lab } = scene;
  await lab.fake("sudo", 'exec "$@"');
  await lab.fake("hdparm", "");
  await Deno.symlink("/usr/bin/sha256sum", join(lab.root, "bin/sha256sum"));
  return scene;
}

async function provision(lab: Lab) {
  const { code, stderr } = await lab.stage("dragonboard", "provision");
  const message = code === 0 ? "" : (await lab.failure("provision")).exception_message ?? "";
  return { code, stderr, message };
}

async function steps(lab: Lab): Promise<string[]> {
  return (await lab.calls("ssh")).map(({ args }) => args.at(-1) ?? "")
    .filter((command) => !/os-release|@10\.1\.1\.1$/.test(command));
}

async function packed(program: string, bytes: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  const file = await Deno.makeTempFile();
  await Deno.writeFile(file, bytes);
  const { stdout } = await new Deno.Command(program, { args: ["-qc", file] }).output();
  await Deno.remove(file);
  return stdout;
}

Deno.test("14-dragonboard 1: the master image writes the card, and the test image boots", async () => {
  await using scene = await openBoard({ image: await packed("xz", IMAGE) });
  const { lab } = scene;
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  assertEquals(await Deno.readFile(join(lab.cwd, "card")), IMAGE);
  const order = [
    "sudo umount /dev/mmcblk1*",
    "dd of=/dev/mmcblk1",
    "sync",
    "hdparm -z /dev/mmcblk1",
    "sudo mount /dev/mmcblk1p3 /mnt",
    "ls /mnt",
    "sudo mkdir -p /mnt/system-data/var/lib/cloud/seed/nocloud-net",
    "nocloud-net/meta-data",
    "nocloud-net/user-data",
    "/mnt/system-data/etc/sudoers.d/ubuntu",
    "sudo umount /mnt",
    "sudo /sbin/reboot",
  ];
  const done = await steps(lab);
  let at = -1;
  for (const part of order) {
    const next = done.findIndex((command, i) => i > at && command.includes(part));
    assert(next > at, `${part} is not behind what comes before it:\n${done.join("\n")}`);
    at = next;
  }
  assertEquals(parse(await lab.read("user-data")).password, "ubuntu");
  assertEquals(lab.clock.paused.at(-1), 60_000);
  assert(!await lab.has("resets"), "a board with its master image up was reset");
});

Deno.test("only what the block map beside the image names is written to the card", async () => {
  await using scene = await openBoard({ answers: { "seek=": REALLY, "hdparm": ":" } });
  const { lab } = scene;
  await lab.fake("sudo", 'exec "$@"');
  const blocks = Math.ceil(IMAGE.length / 4096);
  const map = `<bmap version="1.2"><ImageSize> ${IMAGE.length} </ImageSize>` +
    `<BlockSize> 4096 </BlockSize><BlocksCount> ${blocks} </BlocksCount>` +
    `<MappedBlocksCount> 2 </MappedBlocksCount>` +
    `<BlockMap><Range> 1 </Range><Range> ${blocks - 1} </Range></BlockMap></bmap>`;
  await using images = httpStub(({ path }) =>
    new Response(path === "/i.img" ? IMAGE : path === "/i.img.bmap" ? map : "")
  );
  await lab.job({ provision_data: { url: `${images.url}/i.img` } });
  const { code, stderr } = await provision(lab);
  assertEquals(code, 0, stderr);
  const card = await Deno.readFile(join(lab.cwd, "card"));
  const expected = new Uint8Array(IMAGE.length);
  for (const from of [4096, (blocks - 1) * 4096]) {
    expected.set(IMAGE.subarray(from, from + 4096), from);
  }
  assertEquals(card, expected);
  await lab.config({ ...CONFIG, image_bmap: false });
  assertEquals((await provision(lab)).code, 0);
  assertEquals(await Deno.readFile(join(lab.cwd, "card")), IMAGE);
});

Deno.test("sudo reads the rule of a user whose name it would ignore as a file's", async () => {
  for (const user of ["john.doe", "john@example.com"]) {
    await using scene = await openBoard();
    const { lab, images } = scene;
    await lab.job({
      provision_data: { url: `${images.url}/i.img` },
      test_data: { test_username: user },
    });
    const { code, stderr } = await provision(lab);
    assertEquals(code, 0, stderr);
    const rule = (await steps(lab)).find((step) => step.includes("sudoers.d/")) ?? "";
    assertMatch(rule, /\/etc\/sudoers\.d\/[^./]*[^./~]$/);
  }
});

Deno.test("14-dragonboard 2: a board with its test image up is reset into the master image", async () => {
  await using scene = await openBoard({ up: "test" });
  const { code, stderr } = await provision(scene.lab);
  assertEquals(code, 0, stderr);
  assertEquals((await scene.lab.read("resets")).trim(), "reset");
});

Deno.test("a board that comes back with its test image is told to boot the master image, once", async () => {
  await using scene = await openBoard({ up: "nothing" });
  await scene.lab.write("after_reset", "test");
  const { code, stderr } = await provision(scene.lab);
  assertEquals(code, 0, stderr);
  assertEquals((await scene.lab.read("resets")).trim(), "reset\nreset");

  await using stubborn = await openBoard({ up: "test" });
  await stubborn.lab.config({ ...CONFIG, select_master_script: ["echo test > after_reset"] });
  assertEquals((await provision(stubborn.lab)).code, 46);
});

Deno.test("14-dragonboard 3: a board that shows nothing for 300 s is a matter for a person", async () => {
  await using scene = await openBoard({ up: "nothing" });
  await scene.lab.write("after_reset", "nothing");
  const { code, message } = await provision(scene.lab);
  assertEquals(code, 46);
  assertStringIncludes(message, "within 300 s");
  assertEquals(scene.lab.clock.elapsed, 300_000);
});

Deno.test("14-dragonboard 4: a job without an image is refused before the board is touched", async () => {
  await using scene = await openBoard();
  await scene.lab.job({ provision_data: { x: 1 } });
  const { code } = await provision(scene.lab);
  assertEquals(code, 1);
  assertEquals((await scene.lab.failure("provision")).exception_name, "ProvisioningError");
  assertEquals(await scene.lab.calls(), []);
});

Deno.test("14-dragonboard 5: a connection that breaks off leaves a card that the board falls back from", async () => {
  await using scene = await openBoard({
    answers: { "dd of=": "head -c 1000 >/dev/null; exit 255" },
  });
  const { code } = await provision(scene.lab);
  assertEquals(code, 1);
  assertEquals((await steps(scene.lab)).at(-1), "sudo sgdisk -o /dev/mmcblk1");
});

/** The last step on a board that is stopped while it takes the step with this word. */
async function lastStepWhenStoppedAt(word: string): Promise<string | undefined> {
  await using scene = await openBoard({
    answers: { [word]: ": > reached; head -c 1000 >/dev/null; exec sleep 100000" },
  });
  const { lab } = scene;
  const stop = new AbortController();
  const running = lab.stage("dragonboard", "provision", { signal: stop.signal });
  await until(() => lab.has("reached"));
  stop.abort(new Stopped("SIGTERM"));
  const { code, stderr } = await running;
  assertEquals(code, 143, stderr);
  return (await steps(lab)).at(-1);
}

Deno.test("a stop in the middle of writing leaves a card that the board falls back from", async () => {
  for (const word of ["dd of=", "hdparm -z", "mount /dev/mmcblk1p3", "user-data", "/sbin/reboot"]) {
    assertEquals(await lastStepWhenStoppedAt(word), "sudo sgdisk -o /dev/mmcblk1", word);
  }
});

Deno.test("a stop before anything is written leaves the card as it is", async () => {
  assertEquals(await lastStepWhenStoppedAt("sudo umount"), "sudo umount /dev/mmcblk1*");
});

Deno.test("14-dragonboard 6: writing that takes more than 1800 s ends with the card wiped", async () => {
  await using scene = await openBoard({ answers: { "dd of=": "hang" } });
  const { code, message } = await provision(scene.lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "1800 s");
  assertEquals((await steps(scene.lab)).at(-1), "sudo sgdisk -o /dev/mmcblk1");
});

Deno.test("an image that takes more than 1800 s to arrive is written for all that", async () => {
  await using scene = await openBoard();
  const { lab } = scene;
  // Of which something is left when it is packed.
  const raw = new Uint8Array(300_000);
  for (let at = 0; at < raw.length; at += 50_000) {
    crypto.getRandomValues(raw.subarray(at, at + 50_000));
  }
  for (const image of [raw, await packed("zstd", raw)]) {
    const isWriting = () => lab.has("card");
    await using images = slowImages(lab, { image, ms: 2_000_000, isWriting });
    await lab.job({ provision_data: { url: `${images.url}/i.img` } });
    const before = lab.clock.elapsed;
    const { code, stderr } = await provision(lab);
    assertEquals(code, 0, stderr);
    assert(lab.clock.elapsed - before > 2_000_000);
    assertEquals(await Deno.readFile(join(lab.cwd, "card")), raw);
    for (const file of ["up", "after_reset"]) await lab.write(file, "master");
    await Deno.remove(join(lab.cwd, "card"));
  }
});

Deno.test("14-dragonboard 7: a zstd image arrives unpacked", async () => {
  await using scene = await openBoard({ image: await packed("zstd", IMAGE) });
  const { code, stderr } = await provision(scene.lab);
  assertEquals(code, 0, stderr);
  assertEquals(await Deno.readFile(join(scene.lab.cwd, "card")), IMAGE);
});

Deno.test("an image that cannot be unpacked fails, and the card is wiped", async () => {
  const broken = (await packed("xz", IMAGE)).slice(0, -40);
  await using scene = await openBoard({ image: broken });
  const { code, message } = await provision(scene.lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "on the agent's host");
  assertEquals((await steps(scene.lab)).at(-1), "sudo sgdisk -o /dev/mmcblk1");
});

Deno.test("a host that has no program to unpack the image says which", async () => {
  await using scene = await openBoard({ image: await packed("xz", IMAGE) });
  await scene.lab.remove("xz");
  const { code, message } = await provision(scene.lab);
  assertEquals(code, 1);
  assertMatch(message, /on the agent's host says: .*\bxz\b/);
});

Deno.test("what the card has is compared with what this host has unpacked", async () => {
  for (const image of [IMAGE, await packed("xz", IMAGE)]) {
    await using scene = await openReadingBoard({ image });
    const { lab } = scene;
    const { code, stderr } = await provision(lab);
    assertEquals(code, 0, stderr);
    assertStringIncludes(stderr, `Read back ${IMAGE.length} bytes`);
    assertEquals(await Deno.readFile(join(lab.cwd, "card")), IMAGE);
  }
});

Deno.test("a card that does not keep what is written to it fails the job, and is wiped", async () => {
  const forget = "printf xxxx | dd of=card conv=notrunc 2>/dev/null";
  await using scene = await openReadingBoard({ synced: forget });
  const { lab } = scene;
  const { code, message } = await provision(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "does not keep what is written to it");
  assertEquals((await steps(lab)).at(-1), "sudo sgdisk -o /dev/mmcblk1");

  await lab.config({ ...CONFIG, verify_flash: false });
  assertEquals((await provision(lab)).code, 0);
});

Deno.test("a dd that says that it wrote less than the image fails the job, and the card is wiped", async () => {
  for (
    const dd of [
      "cat >/dev/null; printf '0+1 records in\\n0+1 records out\\n1000 bytes (1.0 kB) copied\\n' >&2",
      "head -c 1000 >/dev/null; echo 0+1 records out >&2",
    ]
  ) {
    for (const image of [NOISE, await packed("xz", NOISE)]) {
      await using scene = await openBoard({ image, answers: { "dd of=": dd } });
      const { code, message, stderr } = await provision(scene.lab);
      assertEquals(code, 1, dd);
      assertMatch(message, /'dd' has written (1000|some) bytes, and the image has/);
      assertStringIncludes(stderr, "the master image has no sha256sum");
      assertEquals((await steps(scene.lab)).at(-1), "sudo sgdisk -o /dev/mmcblk1");
    }
  }
});

Deno.test("14-dragonboard 8: a test image that never boots fails, and the card is wiped", async () => {
  await using scene = await openBoard();
  await scene.lab.config({ ...CONFIG, select_test_script: ["echo master > after_reset"] });
  const { code, message } = await provision(scene.lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "The test image did not come up within 600 s");
  assertEquals((await steps(scene.lab)).at(-1), "sudo sgdisk -o /dev/mmcblk1");
});

Deno.test("14-dragonboard 9: a script that cannot select the test image fails and is named", async () => {
  await using scene = await openBoard();
  await scene.lab.config({ ...CONFIG, select_test_script: ["false"] });
  const { code, message } = await provision(scene.lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "select_test_script[0]");
  assertEquals((await scene.lab.failure("provision")).exception_name, "ProvisioningError");
});

Deno.test("14-dragonboard 10: a reset that hangs is a matter for a person", async () => {
  await using scene = await openBoard({ up: "test" });
  await scene.lab.fake("pdu", "hang");
  await scene.lab.config({ ...CONFIG, reboot_script: ["pdu"] });
  assertEquals((await provision(scene.lab)).code, 46);
});

Deno.test("every step on the board that fails is named, and the card is wiped", async () => {
  for (
    const [word, says] of [
      ["sudo mount", "mount the image"],
      ["mkdir -p", "make a folder for the user data"],
      ["hdparm", "read the partitions"],
      ["sudo umount /mnt", "unmount the image"],
    ] as const
  ) {
    await using scene = await openBoard({ answers: { [word]: "echo broken >&2; exit 32" } });
    const { code, message } = await provision(scene.lab);
    assertEquals(code, 1, word);
    assertStringIncludes(message, says);
    assertEquals((await steps(scene.lab)).at(-1), "sudo sgdisk -o /dev/mmcblk1");
  }
});
