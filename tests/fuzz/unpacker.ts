import { gzipSync } from "node:zlib";
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { unpackAttachments } from "../../lib/job/attachments/unpack.ts";
import { Canary, LIMITS, streamOf, TempFolder, treeOf } from "../job/attachments/support.ts";
import { type BuiltMember, mendChecksum, tarOf } from "../job/attachments/tar_builder.ts";
import type { FuzzTarget, OpenTarget } from "./target.ts";

/**
 * Names of few words, so that members meet each other: links stand at different depths, point at
 * each other, and other members try to go through them.
 */
const letter = fc.constantFrom("x", "y", "z");
const place = fc.tuple(fc.constantFrom("test", "provision"), fc.nat(3), letter)
  .map(([top, depth, name]) => top + "/a".repeat(depth) + `/${name}`);
const through = fc.tuple(place, letter).map(([path, name]) => `${path}/${name}`);
const oddPart = fc.constantFrom("a", "x", "..", ".", "", "canary", "secret");
const odd = fc.array(oddPart, { minLength: 1, maxLength: 5 }).map((parts) => parts.join("/"));
const name = fc.oneof(
  { weight: 10, arbitrary: place },
  { weight: 2, arbitrary: through },
  { weight: 1, arbitrary: fc.tuple(place, odd).map((parts) => parts.join("/")) },
  { weight: 1, arbitrary: odd },
);
const climb = fc.tuple(fc.nat(5), fc.array(fc.constantFrom("x", "y", "a", ".."), { maxLength: 4 }))
  .map(([climbs, parts]) => "../".repeat(climbs) + (parts.join("/") || "."));
const target = fc.oneof(
  { weight: 8, arbitrary: climb },
  { weight: 1, arbitrary: odd },
  { weight: 1, arbitrary: fc.nat(5).map((climbs) => "../".repeat(climbs) + "canary/secret") },
);
const data = fc.uint8Array({ maxLength: 1200 });

const member: fc.Arbitrary<BuiltMember> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ name, data, mode: fc.nat(0o7777) }) },
  { weight: 3, arbitrary: fc.record({ name, type: fc.constant("5"), mode: fc.nat(0o7777) }) },
  { weight: 8, arbitrary: fc.record({ name, type: fc.constant("2"), target }) },
  { weight: 4, arbitrary: fc.record({ name, type: fc.constant("1"), target: name }) },
  {
    weight: 2,
    arbitrary: fc.record({
      name: place,
      pax: fc.record({ path: name, linkpath: target, mtime: fc.constant("1.5") }, {
        requiredKeys: [],
      }),
      type: fc.constantFrom("0", "1", "2", "5"),
    }),
  },
  { weight: 1, arbitrary: fc.record({ name, type: fc.constantFrom("3", "6", "L", "g", "S") }) },
);

/** A link that leads up within the folder, and one that goes on up from where it leads. */
const trap: fc.Arbitrary<BuiltMember[]> = fc.tuple(fc.nat(3), fc.nat(5), fc.nat(5)).map(
  ([depth, up, further]) => {
    const folder = "test" + "/a".repeat(depth);
    return [
      { name: `${folder}/x`, type: "2", target: "../".repeat(up) + "." },
      { name: `${folder}/y`, type: "2", target: "x" + "/..".repeat(further) },
    ];
  },
);

/** Members of which most hard links are to an earlier one, as they can only come to be then. */
const members = fc.tuple(
  fc.array(
    fc.oneof(
      { weight: 15, arbitrary: member.map((one) => [one]) },
      { weight: 1, arbitrary: trap },
    ),
    { maxLength: 6 },
  ),
  fc.nat(60),
).map(([groups, pick]) => {
  const list = groups.flat();
  return list.map((one, i) =>
    one.type === "1" && pick % 4 > 0 && i > 0 ? { ...one, target: list[pick % i]?.name ?? "" } : one
  );
});

/** A change to some bytes; `header` sets the checksum of the block right again. */
const mutation = fc.record({
  at: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
  bytes: fc.uint8Array({ minLength: 1, maxLength: 4 }),
  header: fc.boolean(),
});
const mutations = fc.oneof(
  { weight: 2, arbitrary: fc.constant([]) },
  { weight: 1, arbitrary: fc.array(mutation, { minLength: 1, maxLength: 4 }) },
);

/** No archive touches what is beside the folder, throws, or leaves a part of itself. */
export const unpacker: FuzzTarget = { name: "unpacker of attachments", open };

async function open(): Promise<OpenTarget> {
  const root = new TempFolder();
  const canary = new Canary(root.path);
  const folder = `${root.path}/attachments`;
  await Deno.mkdir(folder);
  let tried = 0;
  let good = 0;
  const property = fc.asyncProperty(
    members,
    mutations,
    fc.oneof({ weight: 9, arbitrary: fc.constant([]) }, {
      weight: 1,
      arbitrary: fc.array(mutation),
    }),
    async (list, inTar, inGzip) => {
      tried++;
      try {
        const archive = gzipSync(changed(tarOf(list), inTar), { level: 1 });
        const result = await unpackAttachments(streamOf(changed(archive, inGzip)), folder, {
          limits: LIMITS,
        });
        assertEquals(canary.change(), undefined);
        if (result.ok) {
          good++;
          checkInside(folder);
        } else {
          assert(/^[^\n]+$/.test(result.reason), result.reason);
          assertEquals(treeOf(folder), []);
        }
      } finally {
        for (const { name } of Deno.readDirSync(folder)) {
          Deno.removeSync(`${folder}/${name}`, { recursive: true });
        }
      }
    },
  );
  return {
    property,
    checkVariety() {
      // Of archives that are all refused at once nothing would be learned.
      assert(good > tried / 20, `only ${good} of ${tried} archives were unpacked`);
    },
    [Symbol.asyncDispose]: () => root[Symbol.asyncDispose](),
  };
}

function changed(
  archive: Uint8Array,
  mutations: readonly {
    at: number;
    bytes: Uint8Array;
    header: boolean;
  }[],
): Uint8Array {
  const copy = archive.slice();
  for (const { at, bytes, header } of mutations) {
    const offset = Math.floor(at * copy.length);
    copy.set(bytes.subarray(0, copy.length - offset), offset);
    const block = offset - offset % 512;
    if (header && block + 512 <= copy.length) mendChecksum(copy, block);
  }
  return copy;
}

/** All that was unpacked is harmless: plain modes, nothing special, no link that leads out. */
function checkInside(folder: string): void {
  for (const { path, info } of treeOf(folder)) {
    assert(info.isFile || info.isDirectory || info.isSymlink, path);
    assert(/^(provision|firmware_update|test)(\/|$)/.test(path), path);
    if (info.isSymlink) checkLink(folder, path);
    else assertEquals((info.mode ?? 0) & 0o7022, 0, `mode of ${path}`);
  }
}

/** Takes the steps that the kernel would take along a link; none of them may be above the folder. */
function checkLink(folder: string, path: string): void {
  const at = path.split("/").slice(0, -1);
  const ahead = [path.split("/").at(-1) ?? ""];
  let links = 0;
  for (let step; (step = ahead.shift()) !== undefined;) {
    if (step === "" || step === ".") continue;
    if (step === "..") {
      assert(at.length > 0, `${path} leads out`);
      at.pop();
      continue;
    }
    const place = [...at, step].join("/");
    const target = linkTarget(`${folder}/${place}`);
    if (target === undefined) {
      at.push(step);
    } else {
      assert(!target.startsWith("/"), `${path} leads to ${target}`);
      if (++links > 40) return; // where the kernel gives up, too
      ahead.unshift(...target.split("/"));
    }
  }
}

function linkTarget(path: string): string | undefined {
  try {
    return Deno.readLinkSync(path);
  } catch {
    return undefined; // a file, a folder, or nothing
  }
}
