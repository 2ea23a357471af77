/**
 * Which program this is. The version is defined here and nowhere else: the build, the file names in
 * `dist/` and `testflinger-agent version` all read it from here.
 */

/** Semantic version of this source. */
export const VERSION = "0.1.0";

/** Where the build leaves its facts: a statement before the bundled program. */
export const BUILD_SYMBOL = "testflinger-agent.build";

/** A checkout holds none of the packages. */
const NO_NOTICES =
  "This is a checkout: the packages that it uses, with their licences, are in Deno's " +
  "cache. Built files contain the notices.\n";

/** How the program was made; what only the build knows is stamped in by `deno task build`. */
interface Build {
  /** Full git commit, with `-dirty` where the working tree differed from it. */
  commit: string;
  /** Such as `x86_64-unknown-linux-gnu`. */
  target: string;
  /** `compile` or `portable`; `source` when it runs from a checkout. */
  packaging: string;
  /** The licences of what is inside. */
  notices(): Promise<string>;
}

/** The facts of this program. */
function build(): Build {
  // A symbol of the global registry, which nothing but the build's own statement sets.
  const stamped = (globalThis as { [name: symbol]: Partial<Build> | undefined })[
    Symbol.for(BUILD_SYMBOL)
  ];
  return {
    commit: "unknown",
    target: Deno.build.target,
    packaging: "source",
    notices: () => Promise.resolve(NO_NOTICES),
    ...stamped,
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

/** The licences of the runtime and of the packages inside this program. */
export function noticesText(): Promise<string> {
  return build().notices();
}
