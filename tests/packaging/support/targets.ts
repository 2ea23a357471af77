import { type Target, TARGETS } from "../../../tools/build/targets.ts";

/** The target that this machine runs. */
export function hostTarget(): Target {
  return find((name) => name === Deno.build.target);
}

/** One that it does not run. */
export function otherTarget(): Target {
  return find((name) => name !== Deno.build.target);
}

function find(matches: (name: string) => boolean): Target {
  const target = TARGETS.find(({ name }) => matches(name));
  if (target === undefined) throw new Error(`Nothing is built for ${Deno.build.target}`);
  return target;
}
