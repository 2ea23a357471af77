/** What is built for, and the runtime that is packed for it. */

/** The version that everything is tested with; both targets have it in the npm registry. */
export const DENO_VERSION = "2.9.5";

/** A machine that a file is built for. */
export interface Target {
  /** As the runtime names it. */
  name: string;
  /** As `uname -m` names it; part of the file's name. */
  arch: string;
  /** `e_machine` of ELF files for it. */
  elfMachine: number;
  /** The npm package that holds its `deno`. */
  denoPackage: string;
  /** SHA-256 of that package's file `deno`. */
  denoSha256: string;
}

export const TARGETS: readonly Target[] = [
  {
    name: "x86_64-unknown-linux-gnu",
    arch: "x86_64",
    elfMachine: 62,
    denoPackage: "@deno/linux-x64-glibc",
    denoSha256: "dc480c462c8c3582524f3e75c160613d0a975e1f66b5465995d58bae236da7d3",
  },
  {
    name: "aarch64-unknown-linux-gnu",
    arch: "aarch64",
    elfMachine: 183,
    denoPackage: "@deno/linux-arm64-glibc",
    denoSha256: "e1a70c5eb03b0ebaf761077029ef86b9ba22d50e2b54ca45ce5437457f701b63",
  },
];

/** How a file is put together. */
export const PACKAGINGS = ["compile", "portable"] as const;
export type Packaging = typeof PACKAGINGS[number];

/** Something that the user of the build can mend: one clear message, no stack. */
export class BuildError extends Error {}
