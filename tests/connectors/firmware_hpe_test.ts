import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { dirname, join } from "node:path";
import { Stopped } from "../../connectors/support/errors.ts";
import {
  compareVersions,
  fetchReleaseNames,
  packageFor,
  packagesIn,
  versionNumbers,
} from "../../connectors/support/firmware/hpe_repository.ts";
import { SPARE_BYTES } from "../../connectors/support/http/transfer.ts";
import { mayMount, SmallDisk } from "../support/small_disk.ts";
import { CONFIG, openMachine, update, updateOf } from "./support/firmware_machine.ts";
import { inStage } from "./support/context.ts";
import { Lab } from "./support/lab.ts";
import { type HttpStub, httpStub, rawHttpStub, type TcpStub, until } from "./support/stubs.ts";

const RELEASE = "2023.09.00.04";

/** The index of a release of the size that HPE's have. */
function indexOf(version: string): Record<string, unknown> {
  const others = Array.from({ length: 300 }, (_, i) => [
    `cp${i}.fwpkg`,
    {
      version: "1.0",
      deviceclass: `class-${i}`,
      target: [`target-${i}`],
      minimum_active_version: "null",
    },
  ]);
  return {
    ...Object.fromEntries(others),
    "U30_2.76.fwpkg": {
      version,
      deviceclass: "rom",
      target: ["rom-target"],
      minimum_active_version: "1.0",
    },
    "ilo5_281.fwpkg": {
      version: "2.81",
      deviceclass: "ilo",
      target: "ilo-word",
      minimum_active_version: null,
    },
    "readme.txt": "no package",
  };
}

interface HpeServer {
  romVersion?: string;
  /** How the certificate of its iLO is checked. @default not at all */
  trust?: Record<string, unknown>;
  /** How long the indexes of its repository are made. */
  indexBytes?: number;
  /** Shell for `ilorest flashfwpkg`. */
  flash?: string;
}

/** An HPE server: its DMI data, its iLO behind a fake ilorest, and a repository on loopback. */
async function openServer(lab: Lab, server: HpeServer = {}) {
  const { romVersion = "U30 v2.70 (01/01/2023)", flash = "true", indexBytes = 0 } = server;
  const filler = { "filler.txt": "y".repeat(indexBytes) };
  const index = { ...filler, ...indexOf("2.76_02-09-2023") };
  const current = { ...index, "ilo5_281.fwpkg": { version: "2.81", target: ["ilo-target"] } };
  const repository = httpStub(({ path }) => {
    const links = [RELEASE, "2022.03.0_supspp_rhel9.0_x86_64", "current"].map((name) =>
      `<a href="${name}/">${name}/</a>`
    );
    if (path === "/fwpp-gen10/") return new Response(links.join("\n"));
    if (path.endsWith(`${RELEASE}/fwrepodata/fwrepo.json`)) return Response.json(index);
    if (path.endsWith("current/fwrepodata/fwrepo.json")) return Response.json(current);
    if (path.endsWith(".fwpkg")) return new Response(`firmware ${path}`);
    return new Response("no", { status: 404 });
  });
  await openMachine(lab, { vendor: "HPE", type: "17" });
  await lab.config({
    ...CONFIG,
    maas_user: "labuser",
    node_id: "abc",
    firmware_repository: `${repository.url}/`,
    ...server.trust ?? { bmc_verify_tls: false },
  });
  await lab.fake(
    "maas",
    `echo '{"power_address": "10.2.2.2", "power_user": "admin", "power_pass": "b$d;%p"}'`,
  );
  const members = (rom: string, ilo: string) =>
    JSON.stringify({
      Members: [
        { Name: "iLO 5", Version: ilo, Oem: { Hpe: { Targets: ["ilo-target"] } } },
        {
          Name: "System ROM",
          Version: rom,
          Oem: { Hpe: { DeviceClass: "rom", Targets: ["rom-target"] } },
        },
        { Name: "Fan", Version: "1" },
      ],
    });
  await lab.write("before.json", members(romVersion, "2.70 May 16 2022"));
  await lab.write("after.json", members("U30 v2.76 (02/09/2023)", "2.81 Aug 17 2023"));
  const { cwd } = lab;
  await lab.fake(
    "ilorest",
    `file=; shift
if [ "$1" = -c ]; then file=$2; cp "$file" ${cwd}/seen.conf; stat -c %a "$file" > ${cwd}/mode; shift 2; fi
shift
case "$1" in
  --version) echo "RESTful Interface Tool 5.3.0.0" ;;
  systeminfo) echo '{"system": {"Model": "ProLiant DL380 Gen10"}}' ;;
  rawget) if [ -e ${cwd}/server-rebooted ]; then cat ${cwd}/after.json; else cat ${cwd}/before.json; fi ;;
  taskqueue) echo "No tasks found" ;;
  types) echo ComputerSystem.v1_13_0.ComputerSystem ;;
  reboot) touch ${cwd}/server-rebooted ${cwd}/in-post ;;
  get) if [ -e ${cwd}/in-post ]; then rm ${cwd}/in-post; echo '{"Oem": {"Hpe": {"PostState": "InPost"}}}'
       else echo '{"Oem": {"Hpe": {"PostState": "FinishedPost"}}}'; fi ;;
  flashfwpkg) cat "$3" >> ${cwd}/flashed; echo >> ${cwd}/flashed; ${flash} ;;
esac`,
  );
  return repository;
}

Deno.test("an HPE server gets each package that it lacks through its iLO, the system ROM first", async () => {
  await using lab = await Lab.open();
  await using _repository = await openServer(lab);
  await lab.job(update({ version: "latest" }));
  const { code, stderr } = await updateOf(lab);
  assertEquals(code, 0, stderr);
  assertEquals(
    (await lab.read("flashed")).trim().split("\n").map((line) => line.split("/").at(-1)),
    ["U30_2.76.fwpkg", "ilo5_281.fwpkg"],
  );
  const commands = (await lab.calls("ilorest")).map(({ args }) =>
    args.find((word) => /^[a-z]/.test(word) && !word.includes("conf")) ?? ""
  );
  assertEquals(commands.at(-1), "logout");
  assert(await lab.has("server-rebooted"));
});

Deno.test("a release whose index has more than a few megabytes is read whole", async () => {
  await using lab = await Lab.open();
  await using _repository = await openServer(lab, { indexBytes: 10_000_000 });
  await lab.job(update({ version: "latest" }));
  const { code, stderr } = await updateOf(lab);
  assertEquals(code, 0, stderr);
  assert(await lab.has("flashed"));
});

Deno.test("the certificate of a BMC is checked unless a key says otherwise, which is told of at each update", async () => {
  const ca = "/etc/ssl/bmc.pem";
  for (
    const { trust, https, fails = false, warns = false } of [
      { trust: {}, https: [], fails: true },
      { trust: { bmc_ca_file: ca }, https: ["--https", ca] },
      { trust: { bmc_verify_tls: false }, https: [], warns: true },
      { trust: { bmc_verify_tls: false, bmc_ca_file: ca }, https: [], warns: true },
    ]
  ) {
    await using lab = await Lab.open();
    await using _repository = await openServer(lab, { trust });
    await lab.job(update({ version: "latest" }));
    const { code, stderr, message } = await updateOf(lab);
    assertEquals(code, fails ? 1 : 0, stderr);
    assertEquals(message.includes("'bmc_ca_file'"), fails);
    assertEquals(stderr.includes("certificate of the BMC is not checked"), warns);
    const logins = (await lab.calls("ilorest")).map(({ args }) => args)
      .filter((args) => args.includes("login"));
    // Without a way to check it, the password goes nowhere.
    assertEquals(logins.length === 0, fails);
    for (const args of logins) assertEquals(args.slice(args.indexOf("login") + 2), https);
  }
});

/** The server behind it, but that each answer breaks off in its middle when it is asked for first. */
function breakingFront(behind: HttpStub): TcpStub {
  const seen = new Set<string>();
  return rawHttpStub(async (request) => {
    const path = request.split(" ")[1] ?? "";
    const answer = await fetch(behind.url + path);
    const text = await answer.text();
    const half = Math.ceil(text.length / 2);
    const end = seen.has(path) ? `${chunk(text.slice(half))}${chunk("")}` : "";
    seen.add(path);
    return {
      head: [`HTTP/1.1 ${answer.status} told`, "Transfer-Encoding: chunked"],
      body: new TextEncoder().encode(chunk(text.slice(0, half)) + end),
    };
  });
}

/** A piece of an answer of ASCII. */
function chunk(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`;
}

Deno.test("a repository all of whose answers come in pieces, and break off once, is read all the same", async () => {
  await using lab = await Lab.open();
  await using repository = await openServer(lab);
  await using front = breakingFront(repository);
  await lab.config({
    ...CONFIG,
    maas_user: "labuser",
    node_id: "abc",
    bmc_verify_tls: false,
    firmware_repository: `http://127.0.0.1:${front.port}/`,
  });
  await lab.job(update({ version: "latest" }));
  const { code, stderr } = await updateOf(lab);
  assertEquals(code, 0, stderr);
  assertEquals((await lab.read("flashed")).trim().split("\n"), [
    `firmware /fwpp-gen10/${RELEASE}/U30_2.76.fwpkg`,
    `firmware /fwpp-gen10/${RELEASE}/ilo5_281.fwpkg`,
  ]);
  // The page, two indexes and two packages, each of them twice.
  assertEquals(front.clients, 10);
});

Deno.test("the password of the BMC is in no command line and in no log", async () => {
  await using lab = await Lab.open();
  await using _repository = await openServer(lab);
  await lab.job(update({ version: "latest" }));
  const { stderr } = await updateOf(lab);
  const commandLines = (await lab.calls()).map(({ args }) => args.join(" ")).join("\n");
  assert(!`${commandLines}${stderr}`.includes("b$d;%p"));
  assertStringIncludes(await lab.read("seen.conf"), "password = b$d;%p");
  assertEquals((await lab.read("mode")).trim(), "600");
});

Deno.test("packages and credentials are gone when the update is over", async () => {
  await using lab = await Lab.open();
  await using _repository = await openServer(lab);
  await lab.job(update({ version: "latest" }));
  await updateOf(lab);
  const left = [...Deno.readDirSync(lab.cwd)].map(({ name }) => name)
    .filter((name) => name.startsWith("fwpkg"));
  assertEquals(left, []);
  const config = (await lab.calls("ilorest"))[0]?.args[2] ?? "";
  assert(config.endsWith("redfish.conf"));
  assertEquals(await Deno.stat(config).then(() => "there", () => "gone"), "gone");
});

Deno.test("an update that is stopped logs out of the iLO, and leaves no credentials", async () => {
  for (
    const [step, sessions] of [["--version", 0], ["login", 1], ["flashfwpkg", 1]] as const
  ) {
    await using lab = await Lab.open();
    await using _repository = await openServer(lab);
    const reached = join(lab.root, "reached");
    await lab.wrap(
      "ilorest",
      `case "$*" in *" ${step}"*) echo "$3" > "${reached}"; exec sleep 100000 ;; esac`,
    );
    await lab.job(update({ version: "latest" }));
    const stop = new AbortController();
    const running = lab.stage("noprovision", "firmware_update", { signal: stop.signal });
    await until(() => Deno.stat(reached).then(({ size }) => size > 0, () => false));
    const folder = dirname((await Deno.readTextFile(reached)).trim());
    assert((await Deno.stat(folder)).isDirectory);
    stop.abort(new Stopped("SIGTERM"));
    const { code, stderr } = await running;
    assertEquals(code, 143, stderr);
    assertEquals(await Deno.stat(folder).then(() => "there", () => "gone"), "gone", step);
    const logouts = (await lab.calls("ilorest")).filter(({ args }) => args.at(-1) === "logout");
    assertEquals(logouts.length, sessions, step);
  }
});

Deno.test({
  name:
    "a disk without room for the packages ends the update before any flash, and nothing is left",
  ignore: !mayMount,
  async fn() {
    let code = 1;
    for (let blocks = 0; code !== 0; blocks++) {
      assert(blocks < 20, "the update does not succeed with any amount of room");
      await using lab = await Lab.open();
      await using disk = await SmallDisk.mount(lab.cwd, { mib: 128 });
      await using _repository = await openServer(lab);
      await lab.job(update({ version: "latest" }));
      // With less room than this nothing is downloaded at all.
      await disk.leave({ blocks: SPARE_BYTES / 4096 + blocks });
      const updated = await updateOf(lab);
      code = updated.code;
      assertEquals(code === 0, await lab.has("flashed"));
      if (code !== 0) assertMatch(updated.message, /^Cannot download .* only \d+ are free in /);
      const left = [...Deno.readDirSync(lab.cwd)].map(({ name }) => name);
      assertEquals(left.filter((name) => name.startsWith("fwpkg")), []);
    }
  },
});

Deno.test("16-firmware-update 11: a release that the repository does not have is refused before any flash", async () => {
  await using lab = await Lab.open();
  await using _repository = await openServer(lab);
  await lab.job(update({ version: "2023.09" }));
  const { code, message } = await updateOf(lab);
  assertEquals(code, 1);
  assertStringIncludes(message, "has no release '2023.09'");
  assertStringIncludes(message, RELEASE);
  assert(!await lab.has("flashed"));
});

Deno.test("releases are found in the page of any server", async () => {
  for (
    const [page, names] of [
      ['<a href="2023.09.00.04/">2023.09.00.04/</a>', ["2023.09.00.04"]],
      ['<a href="/SDR/repo/fwpp-gen10/2023.09.00.04/">x</a>', ["2023.09.00.04"]],
      ['<a href="https://mirror/fwpp-gen10/2023.09.00.04">x</a>', ["2023.09.00.04"]],
      ["<A HREF='./2023.09.00.04/'>x</A>", ["2023.09.00.04"]],
      ["<a href=2023.09.00.04/>x</a>", ["2023.09.00.04"]],
      ['[{"name": "2023.09.00.04"}, {"name": "2024.04.00.00"}]', [
        "2024.04.00.00",
        "2023.09.00.04",
      ]],
      // Cut off in what is shown, as Apache does it.
      [
        '<a href="2022.03.0_supspp_rhel9.0_x86_64/">2022.03.0_supspp_rhe..&gt;</a>',
        ["2022.03.0_supspp_rhel9.0_x86_64"],
      ],
      ['<a href="2023.09.00.04/">x</a> 2025.01.17 10:20 -', ["2023.09.00.04"]],
      ["gen10-2023.09.00.04 and 2023.09.00.04-notes, but 2023.03.00.00.", ["2023.03.00.00"]],
    ] as const
  ) {
    await using lab = await Lab.open();
    await using repository = httpStub(() => new Response(page));
    const found = await inStage(lab, (ctx) => fetchReleaseNames(ctx, `${repository.url}/`));
    assertEquals(found, names, page);
  }
});

Deno.test("a dry run on an HPE server names the packages and flashes none", async () => {
  await using lab = await Lab.open();
  await using repository = await openServer(lab);
  await lab.config({
    ...CONFIG,
    maas_user: "labuser",
    node_id: "abc",
    bmc_verify_tls: false,
    firmware_repository: repository.url,
    firmware_dry_run: true,
  });
  await lab.job(update({ version: RELEASE }));
  const { code, stderr } = await updateOf(lab);
  assertEquals(code, 0, stderr);
  assertStringIncludes(stderr, "System ROM with U30_2.76.fwpkg");
  assert(!await lab.has("flashed"));
});

Deno.test("a flash that fails, or that leaves the old version, is a failure that names it", async () => {
  await using failing = await Lab.open();
  await using _first = await openServer(failing, { flash: "echo 'signature is wrong'; exit 31" });
  await failing.job(update({ version: "latest" }));
  const first = await updateOf(failing);
  assertEquals(first.code, 1);
  assertStringIncludes(first.message, "signature is wrong");

  await using lab = await Lab.open();
  await using _second = await openServer(lab);
  await lab.write("after.json", await lab.read("before.json"));
  await lab.job(update({ version: "latest" }));
  const second = await updateOf(lab);
  assertEquals(second.code, 1);
  assertStringIncludes(
    second.message,
    "System ROM has version U30 v2.70 (01/01/2023), expected 2.76",
  );
});

Deno.test("an iLO that restarts after its flash is waited for until it has been away and is back", async () => {
  await using lab = await Lab.open();
  await using _repository = await openServer(lab, { flash: "echo 'iLO will reboot at the end'" });
  await lab.fake("ping", '[ "$n" != 2 ]');
  await lab.job(update({ version: "latest" }));
  assertEquals((await updateOf(lab)).code, 0);
  assert((await lab.calls("ping")).length >= 3);
});

Deno.test("a component below the version that a package needs is left as it is", async () => {
  await using lab = await Lab.open();
  await using _repository = await openServer(lab, { romVersion: "U30 v0.90" });
  await lab.write(
    "after.json",
    (await lab.read("before.json")).replace("2.70 May 16 2022", "2.81 Aug 17 2023"),
  );
  await lab.job(update({ version: "latest" }));
  const { code, stderr } = await updateOf(lab);
  assertEquals(code, 0, stderr);
  assertStringIncludes(stderr, "needs at least version 1.0");
  assert(!(await lab.read("flashed")).includes("U30"));
});

Deno.test("a package is for a component with a target in common and the same device class", () => {
  const packages = packagesIn({
    "a.fwpkg": { version: "2.9", deviceclass: "x", target: ["t1", "t2"] },
    "b.fwpkg": {
      version: "2.10",
      deviceclass: "x",
      target: ["t2"],
      minimum_active_version: "null",
    },
    "c.fwpkg": { version: "9", deviceclass: "y", target: ["t2"] },
    "d.rpm": { version: "99", deviceclass: "x", target: ["t2"] },
  }, {});
  const component = { name: "C", version: "1", targets: ["t2"] };
  assertEquals(packageFor({ ...component, deviceClass: "x" }, packages)?.file, "b.fwpkg");
  assertEquals(packageFor({ ...component, deviceClass: undefined }, packages)?.file, "c.fwpkg");
  assertEquals(packageFor({ ...component, deviceClass: "z" }, packages), undefined);
  assertEquals(packages.find(({ file }) => file === "b.fwpkg")?.minimumVersion, undefined);
});

Deno.test("ilorest that is missing or too old is said before anything is done", async () => {
  await using old = await Lab.open();
  await using _first = await openServer(old);
  await old.wrap("ilorest", 'case "$*" in *--version*) echo 4.9.0.0; exit ;; esac');
  await old.job(update({ version: "latest" }));
  assertStringIncludes((await updateOf(old)).message, "5.3.0.0 or later is needed");

  await using missing = await Lab.open();
  await using _second = await openServer(missing);
  await missing.remove("ilorest");
  await missing.job(update({ version: "latest" }));
  assertStringIncludes((await updateOf(missing)).message, "ilorest");
});

Deno.test("the BMC of the configuration is used without asking MAAS", async () => {
  await using lab = await Lab.open();
  await using repository = await openServer(lab);
  await lab.write("bmc-password", "other\n");
  await lab.config({
    ...CONFIG,
    bmc: { address: "10.3.3.3", user: "op", password_file: join(lab.cwd, "bmc-password") },
    bmc_ca_file: "/etc/ssl/lab.pem",
    firmware_repository: repository.url,
  });
  await lab.job(update({ version: "latest" }));
  assertEquals((await updateOf(lab)).code, 0);
  assertEquals(await lab.calls("maas"), []);
  assertStringIncludes(await lab.read("seen.conf"), "username = op\npassword = other");
  const login = (await lab.calls("ilorest")).find(({ args }) => args.includes("login"));
  assertEquals(login?.args.slice(-4), ["login", "10.3.3.3", "--https", "/etc/ssl/lab.pem"]);
});

Deno.test("16-firmware-update 12: versions are compared as numbers, however they are written", () => {
  const samples: [string, string][] = [
    ["U30 v2.76 (02/09/2023)", "2.76.2.9.2023"],
    ["2.76_02-09-2023", "2.76.2.9.2023"],
    ["2.96 Aug 17 2023", "2.96"],
    ["08.65.08", "8.65.8"],
    ["HPK2", "2"],
    ["0x31", "49"],
    ["no version", ""],
  ];
  for (const [text, numbers] of samples) assertEquals(versionNumbers(text).join("."), numbers);
  assertEquals(compareVersions("U30 v2.76 (02/09/2023)", "2.76_02-09-2023"), 0);
  assert(compareVersions("2.9", "2.10") < 0);
  assert(compareVersions("0x31", "0x32") < 0);
  assert(compareVersions("5.3.0.0", "5.3") === 0);
});
