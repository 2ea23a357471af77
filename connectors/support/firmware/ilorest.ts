/** HPE's `ilorest` on the agent's host: the way to a server's iLO. */
import { isIP } from "node:net";
import * as z from "zod";
import { join, resolve } from "../../../lib/path.ts";
import type { ConnectorContext } from "../../context.ts";
import { FirmwareUpdateError, fullMessageOf } from "../errors.ts";
import { type TemporaryFolder, temporaryFolder, writeFile } from "../files.ts";
import { issuesText } from "../job.ts";
import { type CommandResult, failureText, succeeded } from "../process/runner.ts";
import type { PutBack } from "../put_back.ts";
import { compareVersions, type Component } from "./hpe_repository.ts";

/** The first version that knows all options used here. */
const LEAST_VERSION = "5.3.0.0";

const CALL_MS = 30_000;

/** Where a server's iLO is, and how to log in. */
export interface Bmc {
  /** An IP address. */
  readonly address: string;
  readonly user: string;
  readonly password: string;
}

const PowerParameters = z.looseObject({
  power_address: z.string().min(1),
  power_user: z.string().min(1),
  power_pass: z.string().min(1),
});

const Inventory = z.looseObject({
  Members: z.array(z.looseObject({
    Name: z.string(),
    Version: z.string().default(""),
    Oem: z.looseObject({
      Hpe: z.looseObject({
        DeviceClass: z.string().optional(),
        Targets: z.array(z.string()).default([]),
      }).optional(),
    }).optional(),
  })),
});

const SystemInfo = z.looseObject({ system: z.looseObject({ Model: z.string() }) });

/**
 * The address and the credentials of the server's iLO: from the configuration, else from MAAS.
 *
 * @throws FirmwareUpdateError saying what is missing.
 */
export async function bmcOf(ctx: ConnectorContext): Promise<Bmc> {
  const configured = ctx.config.bmc;
  const bmc = configured === undefined
    ? await bmcFromMaas(ctx)
    : await bmcFromConfig(configured, ctx);
  if (isIP(bmc.address) !== 0) return bmc;
  throw new FirmwareUpdateError(
    `The address of the BMC must be an IP address, not '${bmc.address}'`,
  );
}

async function bmcFromConfig(
  { address, user, password_file: file }: NonNullable<ConnectorContext["config"]["bmc"]>,
  { cwd }: ConnectorContext,
): Promise<Bmc> {
  try {
    const password = (await Deno.readTextFile(resolve(cwd, file))).trim();
    return { address, user, password };
  } catch (error) {
    throw new FirmwareUpdateError(`Cannot read the password of the BMC: ${fullMessageOf(error)}`);
  }
}

async function bmcFromMaas(ctx: ConnectorContext): Promise<Bmc> {
  const { maas_user: profile, node_id: node } = ctx.config;
  if (profile === undefined || node === undefined) {
    throw new FirmwareUpdateError(
      `The credentials of the server's BMC are not known: set 'maas_user' and 'node_id', or 'bmc', ` +
        `in the device configuration`,
    );
  }
  const argv = ["maas", profile, "node", "power-parameters", node];
  const result = await ctx.runner.run(argv, { timeoutMs: CALL_MS });
  if (!succeeded(result)) {
    throw new FirmwareUpdateError(
      // What it printed may be the password.
      `MAAS does not say how to reach the BMC: '${argv.join(" ")}' ${
        result.ended === "exited" ? `ended with exit status ${result.status}` : `failed`
      }`,
    );
  }
  const parameters = PowerParameters.safeParse(jsonIn(result.stdout));
  if (!parameters.success) {
    throw new FirmwareUpdateError(
      `MAAS does not say how to reach the BMC of ${node}: ${issuesText(parameters.error)}`,
    );
  }
  const { power_address: address, power_user: user, power_pass: password } = parameters.data;
  return { address, user, password };
}

/** A session with an iLO. Logged out when it is disposed of, and also when the stage is stopped. */
export class Ilorest implements AsyncDisposable {
  readonly #ctx: ConnectorContext;
  readonly #bmc: Bmc;
  readonly #folder: TemporaryFolder;
  readonly #end: PutBack;
  /** A login that was broken off may have worked. */
  #mayBeLoggedIn = false;

  private constructor(ctx: ConnectorContext, bmc: Bmc, folder: TemporaryFolder) {
    this.#ctx = ctx;
    this.#bmc = bmc;
    this.#folder = folder;
    this.#end = ctx.putBack("the session with the iLO", async (own) => {
      try {
        if (this.#mayBeLoggedIn) await this.#run(own, ["logout"], CALL_MS);
      } finally {
        // The password is in it.
        await folder[Symbol.asyncDispose]();
      }
    });
  }

  /**
   * Logs in.
   *
   * @throws FirmwareUpdateError when nothing says how to check the iLO's certificate, ilorest is missing
   *   or too old, or the iLO refuses.
   */
  static async open(ctx: ConnectorContext, bmc: Bmc): Promise<Ilorest> {
    const { bmc_verify_tls: verify, bmc_ca_file: ca } = ctx.config;
    // ilorest itself checks nothing unless it is given certificates.
    if (verify && ca === undefined) {
      throw new FirmwareUpdateError(
        "The certificate of the server's BMC cannot be checked: set 'bmc_ca_file' in the device " +
          "configuration, or 'bmc_verify_tls: false' to do without",
      );
    }
    if (!verify) {
      ctx.log.warning(
        "The certificate of the BMC is not checked, as 'bmc_verify_tls' is false: its password goes " +
          "to any host that answers in its place",
      );
    }
    const folder = await temporaryFolder({ prefix: "ilorest-" });
    const ilorest = new Ilorest(ctx, bmc, folder);
    try {
      await ilorest.#checkVersion();
      await ilorest.#writeConfig();
      await ilorest.login();
      return ilorest;
    } catch (error) {
      await ilorest[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end[Symbol.asyncDispose]();
  }

  /** Where the iLO answers pings. */
  get address(): string {
    return this.#bmc.address;
  }

  async login(): Promise<void> {
    await this.call(this.#loginWords());
  }

  /** Logs in. @returns whether that worked: an iLO that restarts does not take logins. */
  async tryLogin(): Promise<boolean> {
    return succeeded(await this.try(this.#loginWords()));
  }

  #loginWords(): string[] {
    const { bmc_ca_file: ca, bmc_verify_tls: verify } = this.#ctx.config;
    this.#mayBeLoggedIn = true;
    return ["login", this.#bmc.address, ...(verify && ca !== undefined ? ["--https", ca] : [])];
  }

  async #checkVersion(): Promise<void> {
    const version = /\d+(?:\.\d+){2,}/.exec(await this.call(["--version"]))?.[0];
    if (version !== undefined && compareVersions(version, LEAST_VERSION) >= 0) return;
    throw new FirmwareUpdateError(
      `ilorest ${LEAST_VERSION} or later is needed on the agent's host, ` +
        `there is ${version ?? "one that does not say its version"}`,
    );
  }

  /** Credentials on a command line could be read by everyone on the host. */
  async #writeConfig(): Promise<void> {
    const { user, password } = this.#bmc;
    if (/[\r\n]/.test(user + password)) {
      throw new FirmwareUpdateError("The user or the password of the BMC has more than one line");
    }
    await writeFile(
      this.#configFile,
      `[redfish]\nusername = ${user}\npassword = ${password}\n`,
      { mode: 0o600 },
    );
  }

  get #configFile(): string {
    return join(this.#folder.path, "redfish.conf");
  }

  /** Runs one command of ilorest. @throws FirmwareUpdateError when it fails. */
  async call(words: readonly string[], timeoutMs: number = CALL_MS): Promise<string> {
    const result = await this.try(words, timeoutMs);
    if (succeeded(result)) return result.stdout;
    throw new FirmwareUpdateError(failureText(`ilorest ${words.join(" ")}`, result));
  }

  /** Runs one command of ilorest, which may fail. */
  try(words: readonly string[], timeoutMs: number = CALL_MS): Promise<CommandResult> {
    return this.#run(this.#ctx, words, timeoutMs);
  }

  #run(
    { runner }: Pick<ConnectorContext, "runner">,
    words: readonly string[],
    timeoutMs: number,
  ): Promise<CommandResult> {
    return runner.run(
      ["ilorest", "--nologo", "-c", this.#configFile, `--cache-dir=${this.#folder.path}`, ...words],
      { timeoutMs },
    );
  }

  /** Such as `ProLiant DL380 Gen10`. */
  async model(): Promise<string> {
    const text = await this.call(["systeminfo", "--system", "--json"]);
    const info = SystemInfo.safeParse(jsonIn(text));
    if (info.success) return info.data.system.Model;
    throw new FirmwareUpdateError("The iLO does not say what model the server is");
  }

  /** What of the server has firmware that a package can be for. */
  async components(): Promise<Component[]> {
    const text = await this.call([
      "rawget",
      "/redfish/v1/UpdateService/FirmwareInventory/",
      "--expand",
      "--silent",
    ]);
    const inventory = Inventory.safeParse(jsonIn(text));
    if (!inventory.success) {
      throw new FirmwareUpdateError(
        `The iLO's firmware inventory cannot be read: ${issuesText(inventory.error)}`,
      );
    }
    return inventory.data.Members.flatMap(({ Name, Version, Oem }) => {
      const { DeviceClass, Targets = [] } = Oem?.Hpe ?? {};
      if (Targets.length === 0) return [];
      return [{ name: Name, version: Version, deviceClass: DeviceClass, targets: Targets }];
    });
  }
}

/** The JSON object in a program's output, which may have other lines before it. */
function jsonIn(text: string): unknown {
  const start = text.search(/^\s*\{/m);
  if (start < 0) return undefined;
  try {
    return JSON.parse(text.slice(start));
  } catch {
    return undefined;
  }
}
