import { assertEquals, assertStringIncludes } from "@std/assert";
import { parseDiskSize } from "../../connectors/maas2/storage/layout.ts";
import { Lab } from "./support/lab.ts";
import { fakeMaas, MAAS_CONFIG, maasCalls } from "./support/maas.ts";

const GB = 1e9;
const MIB = 2 ** 20;

/** The machine of the reference sample. */
const DEVICES = [
  { id: 11, type: "physical", size: String(100 * GB), filesystem: null, partitions: [{ id: 5 }] },
  {
    id: 12,
    type: "physical",
    size: 500 * GB,
    filesystem: { fstype: "ext4", mount_point: "/old" },
    partitions: [],
  },
];

/** The layout of the reference sample. */
const DISKS = [
  { type: "disk", id: "disk0", disk: 0, ptable: "gpt", boot: true, name: "root" },
  { type: "partition", id: "p1", device: "disk0", number: 1, size: "500M" },
  { type: "partition", id: "p2", device: "disk0", number: 2, size: "1G", alloc_pct: 50 },
  { type: "format", id: "f1", volume: "p1", fstype: "fat32", label: "efi" },
  { type: "format", id: "f2", volume: "p2", fstype: "ext4", label: "root" },
  { type: "mount", id: "m1", device: "f1", path: "/boot/efi" },
  { type: "mount", id: "m2", device: "f2", path: "/" },
];

/** What the sample asks of MAAS. Half of the disk, but for what the partition table takes. */
const COMMANDS = [
  "block-devices read n0de",
  "partition delete n0de 11 5",
  "block-device unmount n0de 12",
  "block-device unformat n0de 12",
  "block-device set-boot-disk n0de 11",
  "block-device update n0de 11 name=root",
  "partitions create n0de 11 size=500000000",
  "partitions create n0de 11 size=49991909376",
  "partition format n0de 11 101 fstype=fat32 label=efi",
  "partition format n0de 11 102 fstype=ext4 label=root",
  "partition mount n0de 11 101 mount_point=/boot/efi",
  "partition mount n0de 11 102 mount_point=/",
];

interface Setup {
  readonly disks?: unknown;
  readonly config?: Record<string, unknown>;
  readonly devices?: unknown;
  readonly on?: Record<string, string>;
}

/** Provisions; the calls are those between the release and the allocation. */
async function provision(
  lab: Lab,
  setup: Setup,
): Promise<{ code: number; calls: string[]; message: string; failure: Record<string, unknown> }> {
  await lab.config({ ...MAAS_CONFIG, ...setup.config });
  await lab.job({ provision_data: setup.disks === undefined ? {} : { disks: setup.disks } });
  await fakeMaas(lab, {
    statuses: ["Ready", "Deployed"],
    devices: setup.devices ?? DEVICES,
    on: setup.on ?? {},
  });
  const { code } = await lab.stage("maas2", "provision");
  const all = await maasCalls(lab);
  const end = all.findIndex((call) => call.startsWith("machines allocate"));
  const calls = all.slice(all.indexOf("machine read n0de") + 1, end < 0 ? undefined : end);
  const failure = code === 0 ? {} : await lab.failure("provision");
  return { code, calls, message: String(failure["exception_message"] ?? ""), failure };
}

/** A layout that must be refused without a change to the machine. */
async function assertRefused(setup: Setup, ...words: string[]): Promise<void> {
  await using lab = await Lab.open();
  const { code, calls, message, failure } = await provision(lab, setup);
  assertEquals(code, 1);
  assertEquals(failure["exception_name"], "MaasStorageError");
  for (const word of words) assertStringIncludes(message, word);
  assertEquals(calls.filter((call) => !/ read /.test(call)), []);
}

Deno.test("04-maas-storage 1: the sample layout is written by these very commands", async () => {
  await using lab = await Lab.open();
  const { code, calls } = await provision(lab, { disks: DISKS });
  assertEquals(code, 0);
  assertEquals(calls, COMMANDS);
});

Deno.test("04-maas-storage 2: sizes are bytes, or decimal, or binary where they say so", () => {
  for (
    const [size, bytes] of [
      ["1G", 1e9],
      ["500M", 5e8],
      ["10K", 1e4],
      ["1000", 1000],
      [1000, 1000],
      ["1.5G", 1.5e9],
      ["2t", 2e12],
      ["7B", 7],
      ["1GiB", 2 ** 30],
      ["1.5 mib", 1.5 * MIB],
      ["2.3G", 2_300_000_000],
    ] as const
  ) assertEquals(parseDiskSize(size), bytes, String(size));
});

Deno.test("04-maas-storage 3: what is no size is refused, and nothing is cleared", async () => {
  for (const size of ["1Tb", "abc", "-1G"]) {
    const disks = [DISKS[0], { type: "partition", id: "p1", device: "disk0", number: 1, size }];
    await assertRefused({ disks }, `disks[1] (partition): size: '${size}' is no size`);
  }
  for (const size of ["", "G", "1iB", "1 2", "1e3", "0", "1.G", "9999999T", -1, 1e300, NaN]) {
    assertEquals(parseDiskSize(size), undefined, String(size));
  }
});

Deno.test("04-maas-storage 4: more than 100 percent of a disk are refused, and nothing is cleared", async () => {
  const disks = [
    DISKS[0],
    { type: "partition", id: "p1", device: "disk0", number: 1, size: "1G", alloc_pct: 60 },
    { type: "partition", id: "p2", device: "disk0", number: 2, size: "1G", alloc_pct: 50 },
  ];
  await assertRefused({ disks }, "'disk0': alloc_pct adds up to 110");
});

/** Two disks with one partition each. */
function twoDisks(sizes: readonly [string, string], more: readonly unknown[] = []) {
  return [
    { type: "disk", id: "A", disk: 0 },
    { type: "disk", id: "B", disk: 1 },
    { type: "partition", id: "a1", device: "A", number: 1, size: sizes[0] },
    { type: "partition", id: "b1", device: "B", number: 1, size: sizes[1] },
    ...more,
  ];
}

Deno.test("04-maas-storage 5: a small disk is not wasted on, nor a large one taken from, others", async () => {
  const devices = [
    { id: 2, type: "physical", size: 500 * GB, partitions: [] },
    { id: 1, type: "physical", size: 100 * GB, partitions: [] },
  ];
  await using lab = await Lab.open();
  const { code, calls } = await provision(lab, { disks: twoDisks(["50G", "200G"]), devices });
  assertEquals(code, 0);
  assertEquals(calls.slice(1), [
    "partitions create n0de 1 size=50000000000",
    "partitions create n0de 2 size=200000000000",
  ]);
});

Deno.test("04-maas-storage 6: a layout that is too large for the machine is refused", async () => {
  const disks = [DISKS[0], { type: "partition", id: "p1", device: "disk0", size: "5T" }];
  await assertRefused(
    { disks },
    "'disk0' fits on no disk of the machine: on the largest one that is free (12, 500000000000",
  );
  await assertRefused(
    { disks: twoDisks(["200G", "200G"]) },
    "The machine does not have enough disks for 'A', 'B': free are 11 (100000000000 bytes), 12",
  );
});

Deno.test("04-maas-storage 7: a format of a whole disk is one of the block device", async () => {
  const disks = [
    { type: "disk", id: "disk0" },
    { type: "format", id: "f1", volume: "disk0", fstype: "xfs" },
    { type: "mount", id: "m1", device: "f1", path: "/data", options: "noatime" },
  ];
  await using lab = await Lab.open();
  const { code, calls } = await provision(lab, { disks });
  assertEquals(code, 0);
  assertEquals(calls.slice(4), [
    "block-device format n0de 11 fstype=xfs",
    "block-device mount n0de 11 mount_point=/data mount_options=noatime",
  ]);
});

Deno.test("04-maas-storage 8: the boot disk is the one that says so, has /boot, or has /", async () => {
  const on = (volume: string, path: string, n: number) => [
    { type: "format", id: `f${n}`, volume, fstype: "ext4" },
    { type: "mount", id: `m${n}`, device: `f${n}`, path },
  ];
  const cases = [
    [[...on("a1", "/srv/bootstrap", 1), ...on("b1", "/", 2)], 12],
    [[...on("a1", "/", 1), ...on("b1", "/boot", 2)], 12],
    [[...on("a1", "/boot", 1), ...on("b1", "/boot/efi", 2)], 12],
    [[...on("a1", "/data", 1)], undefined],
    [[{ type: "disk", id: "C", boot: true }, ...on("a1", "/boot", 1)], 13],
  ] as const;
  for (const [more, boot] of cases) {
    await using lab = await Lab.open();
    const devices = [...DEVICES, { id: 13, type: "physical", size: GB, partitions: [] }];
    const { code, calls } = await provision(lab, {
      disks: twoDisks(["50G", "200G"], more),
      devices,
    });
    assertEquals(code, 0);
    assertEquals(
      calls.filter((call) => call.includes("set-boot-disk")),
      boot === undefined ? [] : [`block-device set-boot-disk n0de ${boot}`],
    );
  }
});

Deno.test("04-maas-storage 9: references that lead nowhere, or in circles, are refused", async () => {
  await assertRefused(
    { disks: [DISKS[0], { type: "partition", id: "p1", device: "nope", size: "1G" }] },
    "'p1': there is no entry 'nope', which its 'device' names",
  );
  await assertRefused(
    {
      disks: [
        { type: "partition", id: "a", device: "b", size: "1G" },
        { type: "partition", id: "b", device: "a", size: "1G" },
      ],
    },
    "'a': its 'device' must name a disk, and 'b' is a partition",
    "'b': its 'device' must name a disk, and 'a' is a partition",
  );
});

Deno.test("04-maas-storage 10: an empty list is refused, and nothing is cleared", async () => {
  await assertRefused({ disks: [] }, "'disks' is an empty list");
});

Deno.test("04-maas-storage 11: default_disks are for jobs without disks, in the same form", async () => {
  await using lab = await Lab.open();
  const { code, calls } = await provision(lab, { config: { default_disks: DISKS } });
  assertEquals(code, 0);
  assertEquals(calls, COMMANDS);
  await using other = await Lab.open();
  const own = [{ type: "disk", id: 1, name: "mine" }];
  const result = await provision(other, { disks: own, config: { default_disks: DISKS } });
  assertEquals(result.calls.slice(4), ["block-device update n0de 11 name=mine"]);
  await assertRefused(
    { config: { default_disks: [{ type: "raid", id: "r" }] } },
    "default_disks[0]: type: must be disk, partition, format or mount",
  );
});

Deno.test("03-maas2 correction 3: default_disks that is empty is the flat layout", async () => {
  await using lab = await Lab.open();
  await lab.config({ ...MAAS_CONFIG, default_disks: [] });
  await lab.job({ provision_data: { distro: "noble" } });
  await fakeMaas(lab);
  assertEquals((await lab.stage("maas2", "provision")).code, 0);
  const calls = await maasCalls(lab);
  assertEquals(calls.filter((call) => call.includes("storage")), [
    "machine set-storage-layout n0de storage_layout=flat",
  ]);
});

Deno.test("03-maas2 correction 3: a virtual block device without size does not fail the layout, a disk does", async () => {
  const disk = { id: 1, type: "physical", size: 9_000_000_000 };
  for (const size of [{}, { size: null }]) {
    await using lab = await Lab.open();
    const { code, calls } = await provision(lab, {
      disks: [{ type: "disk", id: "d" }],
      devices: [disk, { id: 7, type: "virtual", ...size }],
    });
    assertEquals(code, 0);
    assertEquals(calls.at(-1), "block-device delete n0de 7");
    await assertRefused(
      { disks: [{ type: "disk", id: "d" }], devices: [{ ...disk, size: null, ...size }] },
      "0.size: a disk must have a size",
    );
  }
});

Deno.test("04-maas-storage 12: a partition that MAAS refuses is named, with what MAAS said", async () => {
  await using lab = await Lab.open();
  const { code, calls, message, failure } = await provision(lab, {
    disks: DISKS,
    on: {
      "partitions create":
        `count .p; [ $i -lt 2 ] || { echo "no space left on sda"; exit 2; }; echo '{"id": 101}'`,
    },
  });
  assertEquals(code, 1);
  assertEquals(failure["exception_name"], "MaasStorageError");
  assertStringIncludes(message, "Cannot create the partition 'p2'");
  assertStringIncludes(String(failure["exception_cause"]), "no space left on sda");
  // It ends there.
  assertEquals(calls.at(-1), COMMANDS[7]);
});

Deno.test("every mistake of a layout is named, and the entry that has it", async () => {
  await assertRefused(
    {
      disks: [
        "junk",
        { type: "lvm", id: "v" },
        { type: "disk", id: "d", disk: { color: "red" } },
        { type: "disk", id: "d" },
        { type: "disk", id: "e", boot: true },
        { type: "disk", id: "g", boot: true },
        { type: "partition", id: "p", device: "e" },
        { type: "partition", id: "q", device: "e", size: "1G", alloc_pct: 101 },
        { type: "partition", id: "r", device: "e", size: "1G" },
        { type: "format", id: "f", volume: "r", fstype: "" },
        { type: "format", id: "h", volume: "r", fstype: "ext4" },
        { type: "format", id: "i", volume: "r", fstype: "ext4" },
        { type: "format", id: "j", volume: "e", fstype: "ext4" },
        { type: "mount", id: "m", device: "h", path: "data" },
        { type: "mount", id: "n", device: "j", path: "/x" },
        { type: "mount", id: "o", device: "i", path: "/x/" },
        { type: "mount", id: "s", device: "r", path: "/y" },
      ],
    },
    "disks[0]: ",
    "disks[1]: type: must be disk, partition, format or mount",
    "disks[2] (disk): disk: must be a number, a name, {name: NAME} or {serial: SERIAL}",
    "disks[3]: the id 'd' is there twice",
    "only one disk can have 'boot'",
    "disks[6] (partition): 'size' or 'alloc_pct' is needed",
    "disks[7] (partition): alloc_pct: must be 1 to 100",
    "disks[9] (format): fstype: must not be empty",
    "'i': the volume 'r' is taken by 'h'",
    "'j': the disk 'e' also has partitions",
    "'m': 'data' is no absolute path",
    "'o': the path '/x' is taken by 'n'",
    "'s': its 'device' must name a format, and 'r' is a partition",
  );
});

Deno.test("a disk can be meant by its name or its serial number", async () => {
  const devices = [
    { id: 1, type: "physical", size: 100 * GB, name: "sda", serial: "S1", partitions: [] },
    { id: 2, type: "physical", size: 100 * GB, name: "sdb", serial: "S2", partitions: [] },
    { id: 3, type: "physical", size: 100 * GB, name: "sdc", serial: "S3", partitions: [] },
  ];
  for (const disk of [{ name: "sdb" }, { serial: "S2" }, "sdb", "S2"]) {
    await using lab = await Lab.open();
    const disks = [{ type: "disk", id: "x", name: "x" }, {
      type: "disk",
      id: "y",
      disk,
      name: "y",
    }];
    const { code, calls } = await provision(lab, { disks, devices });
    assertEquals(code, 0);
    assertEquals(calls.slice(1), [
      "block-device update n0de 1 name=x",
      "block-device update n0de 2 name=y",
    ]);
  }
  await assertRefused(
    { disks: [{ type: "disk", id: "x", disk: { name: "sdz" } }], devices },
    "The machine has no disk for 'x': none that is free has the name 'sdz'",
  );
  await assertRefused(
    {
      disks: [
        { type: "disk", id: "x", disk: { name: "sda" } },
        { type: "partition", id: "p", device: "x", size: "1T" },
      ],
      devices,
    },
    "'x' does not fit on disk 1",
  );
});

Deno.test("partitions are created by their number, whatever the order of the list", async () => {
  const partition = (id: string, number: number | undefined, size: string) => ({
    type: "partition",
    id,
    device: "d",
    number,
    size,
  });
  await using lab = await Lab.open();
  const { calls } = await provision(lab, {
    disks: [
      partition("last", undefined, "5M"),
      partition("c", 3, "30M"),
      partition("a", 1, "10M"),
      partition("b", 2, "20M"),
      { type: "disk", id: "d" },
    ],
    devices: [{ id: 1, type: "physical", size: GB, partitions: [] }],
  });
  assertEquals(calls.slice(1).map((call) => call.split("=")[1]), [
    "10000000",
    "20000000",
    "30000000",
    "5000000",
  ]);
});

Deno.test("a volume is what has that id, never what has that number", async () => {
  await using lab = await Lab.open();
  const { code, calls } = await provision(lab, {
    disks: [
      { type: "disk", id: "d" },
      { type: "partition", id: 2, device: "d", number: 1, size: "10M" },
      { type: "partition", id: "1", device: "d", number: 2, size: "10M" },
      { type: "format", id: "f", volume: 1, fstype: "ext4" },
    ],
    devices: [{ id: 7, type: "physical", size: GB, partitions: [] }],
  });
  assertEquals(code, 0);
  assertEquals(calls.at(-1), "partition format n0de 7 102 fstype=ext4");
});

Deno.test("LVM and RAID go before the partitions that they are made of", async () => {
  const devices = [
    {
      id: 1,
      type: "physical",
      size: 100 * GB,
      filesystem: null,
      partitions: [{ id: 4, filesystem: { fstype: "lvm-pv" } }],
    },
    { id: 2, type: "physical", size: 100 * GB, filesystem: { fstype: "raid" }, partitions: [] },
    { id: 3, type: "virtual", size: 90 * GB, filesystem: { fstype: "lvm-pv" } },
    { id: 4, type: "virtual", size: 50 * GB, filesystem: { fstype: "ext4", mount_point: "/" } },
  ];
  await using lab = await Lab.open();
  const { code, calls } = await provision(lab, {
    disks: [{ type: "disk", id: "d" }],
    devices,
    on: { "volume-groups read": `echo '[{"id": 8, "name": "vg"}]'` },
  });
  assertEquals(code, 0);
  assertEquals(calls, [
    "block-devices read n0de",
    "volume-groups read n0de",
    "block-device delete n0de 4",
    "volume-group delete n0de 8",
    "block-device delete n0de 3",
    "partition delete n0de 1 4",
  ]);
});

Deno.test("a partition whose creation was not answered is not created twice", async () => {
  for (const created of [true, false]) {
    await using lab = await Lab.open();
    const partitions = created ? '[{"id": 101}]' : "[]";
    const { code, calls } = await provision(lab, {
      disks: [
        { type: "disk", id: "d" },
        { type: "partition", id: "p", device: "d", size: "1G" },
        { type: "format", id: "f", volume: "p", fstype: "ext4" },
      ],
      on: {
        "partitions create":
          "if [ -e .again ]; then echo '{\"id\": 101}'; else touch .again; echo timed out; exit 1; fi",
        "block-devices read": `if [ -e .again ]; then p='${partitions}'; else p='[]'; fi
          printf '[{"id": 1, "type": "physical", "size": 9000000000, "partitions": %s}]' "$p"`,
      },
    });
    assertEquals(code, 0);
    const creations = calls.filter((call) => call.startsWith("partitions create"));
    assertEquals(creations.length, created ? 1 : 2);
    assertEquals(calls.at(-1), "partition format n0de 1 101 fstype=ext4");
  }
});

Deno.test("an old partition that is gone when its deletion is repeated is no failure", async () => {
  await using lab = await Lab.open();
  const { code } = await provision(lab, {
    disks: [{ type: "disk", id: "d" }],
    on: {
      "partition delete":
        "if [ -e .again ]; then echo Not Found; exit 2; fi; touch .again; echo 'Connection reset'; exit 1",
    },
  });
  assertEquals(code, 0);
});

Deno.test("each storage command that hangs or fails is named with its entry", async () => {
  for (
    const [call, step] of [
      ["block-devices read", "read the machine's block devices"],
      ["partition delete", "delete the old partition 5 of disk 11"],
      ["block-device unmount", "unmount the old file system of disk 12"],
      ["block-device unformat", "remove the old file system of disk 12"],
      ["block-device set-boot-disk", "make the disk 'disk0' the boot disk"],
      ["block-device update", "name the disk 'disk0'"],
      ["partitions create", "create the partition 'p1'"],
      ["partition format", "make the file system 'f1'"],
      ["partition mount", "mount 'm1' at /boot/efi"],
    ] as const
  ) {
    for (
      const [script, words] of [
        ["hang", "was ended after 120 s"],
        ["echo broken >&2; exit 3", "ended with exit status 3: broken"],
      ] as const
    ) {
      await using lab = await Lab.open();
      const { code, message, failure } = await provision(lab, {
        disks: DISKS,
        on: { [call]: script },
      });
      assertEquals(code, 1);
      assertEquals(failure["exception_name"], "MaasStorageError");
      assertStringIncludes(message, `Cannot ${step}`);
      assertStringIncludes(message, `'maas ${call}' ${words}`);
    }
  }
});

Deno.test("block devices and partitions that are rubbish are named, and nothing is cleared", async () => {
  for (const rubbish of ["echo rubbish", "echo '{}'", "true", 'echo \'[{"id": "x"}]\'']) {
    await assertRefused(
      { disks: DISKS, on: { "block-devices read": rubbish } },
      "Cannot read the machine's block devices: 'maas block-devices read' printed",
    );
  }
  await using lab = await Lab.open();
  const { message } = await provision(lab, {
    disks: DISKS,
    on: { "partitions create": "echo rubbish" },
  });
  assertStringIncludes(
    message,
    "Cannot create the partition 'p1': 'maas partitions create' printed",
  );
});
