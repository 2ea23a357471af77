/**
 * Which program this is. The version is defined here and nowhere else: the build, the file names in
 * `dist/` and `testflinger-agent version` all read it from here.
 */

/** Semantic version of this source. */
export const VERSION = "0.1.0";

/** Where the build leaves its facts: a statement before the bundled program. */
export const BUILD_SYMBOL = "testflinger-agent.build";

/** How the program was made; what only the build knows is stamped in by `deno task build`. */
interface Build {
  /** Full git commit, with `-dirty` where the working tree differed from it. */
  commit: string;
  /** Such as `x86_64-unknown-linux-gnu`. */
  target: string;
  /** `compile` or `portable`; `source` when it runs from a checkout. */
  packaging: string;
}

/** The facts of this program. */
function build(): Build {
  // A symbol of the global registry, which nothing but the build's own statement sets.
  const stamped = (globalThis as { [name: symbol]: unknown })[Symbol.for(BUILD_SYMBOL)];
  const fact = (name: keyof Build, otherwise: string): string => {
    if (typeof stamped !== "object" || stamped === null || !(name in stamped)) return otherwise;
    const value: unknown = Reflect.get(stamped, name);
    return typeof value === "string" ? value : otherwise;
  };
  return {
    commit: fact("commit", "unknown"),
    target: fact("target", Deno.build.target),
    packaging: fact("packaging", "source"),
  };
}

/** What `testflinger-agent version` prints. */
export function versionText(): string {
  const { commit, target, packaging } = build();
  return [
    `testflinger-agent ${VERSION}`,
    `commit     ${commit}`,
    `target     ${target}`,
    `packaging  ${packaging}`,
    `runtime    Deno ${Deno.version.deno}, V8 ${Deno.version.v8}`,
    "",
  ].join("\n");
}
