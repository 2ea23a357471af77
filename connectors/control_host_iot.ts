/** IoT boards that the service of a control host flashes. */
import * as z from "zod";
import type { ConnectorContext, PrepareContext } from "./context.ts";
import { defineConnector } from "./define.ts";
import { ProvisioningError } from "./support/errors.ts";
import {
  bootBinary,
  controlHostProvisionShape,
  controlHostRequest,
  provisionByControlHost,
} from "./support/control_host/provision.ts";
import { checkUserName, type Credentials, credentials, type JobData } from "./support/job.ts";
import { SSH_COPY_ID, SSHPASS } from "./support/process/programs.ts";
import { deviceTarget } from "./support/ssh/ssh.ts";
import { copySshKey } from "./support/ssh/ssh_keys.ts";

const DEFAULT_LOGIN: Credentials = { user: "ubuntu", password: "ubuntu" };

/** The control host downloads the images itself. */
const SCHEMES = ["http:", "https:", "ftp:"];

const mapping = z.record(z.string(), z.unknown(), { error: "must be a mapping" })
  .meta({ type: "mapping" });

/** A plan of stages for the control host. Only what is looked at here. */
const planSchema = z.looseObject({
  config: z.looseObject({
    username: z.string().nullish(),
    password: z.union([z.string(), z.number()]).transform(String).nullish(),
  }, { error: "must be a mapping" }),
  run_stage: z.array(z.unknown(), { error: "must be a list of stages" }),
}, { error: "must be a mapping" });

/** A stage that logs in for the first time, by a certain method. */
const loginStage = z.looseObject({ initial_login: z.looseObject({ method: z.string() }) });

function isEmpty(value: unknown): boolean {
  return typeof value === "object" && value !== null && Object.keys(value).length === 0;
}

const provisionData = {
  url: z.string().optional().describe("Image, which the control host downloads."),
  urls: z.array(z.string(), { error: "must be a list of URLs" }).meta({ type: "list of text" })
    .optional().describe("Several images; ignored if there is a 'url'."),
  preset: z.string().optional().describe("Name of a preset that the control host knows."),
  preset_kwargs: mapping.optional().describe("Arguments of the preset."),
  provision_plan: z.preprocess(
    // An empty one is none.
    (plan) => isEmpty(plan) ? undefined : plan,
    planSchema.optional(),
  ).meta({ type: "mapping" }).optional().describe(
    "The job's own way to provision, instead of 'preset': config, and run_stage, a list.",
  ),
  ubuntu_sso_email: z.string().optional().describe(
    "Account that the first login (console-conf) imports its user from; no key is copied then.",
  ),
  agent_ssh_access: z.boolean().default(true).describe(
    "false: do not copy the agent's ssh key to the device.",
  ),
  ...controlHostProvisionShape,
};

type Data = z.output<z.ZodObject<typeof provisionData>>;
type Plan = z.output<typeof planSchema>;

export const controlHostIot = defineConnector({
  name: "control_host_iot",
  summary: "Lets the service of a control host flash an IoT board.",
  config: {},
  provisionData,
  testedAgainst: "a real HTTP server, in place of the control host's service",
  needs: ["control_host", "agent_name", "device_ip", "reboot_script"],
  powerManagement: true,
  programs: [
    { ...SSHPASS, onlyFor: "copying the ssh key" },
    { ...SSH_COPY_ID, onlyFor: "copying the ssh key" },
  ],
  async prepare(ctx, { job, data }) {
    if (data.preset === undefined && data.provision_plan === undefined) {
      throw new ProvisioningError(
        "The job's provision_data has neither 'preset' nor 'provision_plan': the control host " +
          "would not know what to do",
      );
    }
    const login = loginOf(ctx, job, data.provision_plan);
    const user = data.ubuntu_sso_email ?? login.user;
    const { password } = login;
    const binary = await bootBinary(ctx);
    const urls = imageUrls(data);
    if (binary !== undefined && urls.length > 0) {
      ctx.log.warning("The job has an attachment and a URL: the control host gets the attachment");
    }
    const request = await controlHostRequest(ctx, {
      method: "ProvisioningIoT",
      kwargs: {
        username: user,
        password,
        preset: data.preset ?? null,
        preset_kwargs: data.preset_kwargs ?? null,
        urls,
        ...planOf(data, { user, password }),
      },
      job,
      data,
      bootBinary: binary,
    });
    const copiesKey = data.agent_ssh_access && data.ubuntu_sso_email === undefined;
    return { request, login: copiesKey ? login : undefined };
  },
  async provision(ctx, { plan: { request, login } }) {
    await provisionByControlHost(ctx, request);
    if (login !== undefined) await copyKey(ctx, login);
  },
});

/** Who is to be created on the device: as the tests will log in, else as the plan says. */
function loginOf({ log }: PrepareContext, job: JobData, plan: Plan | undefined): Credentials {
  const { username, password } = plan?.config ?? {};
  const login = credentials(job, {
    user: username ?? DEFAULT_LOGIN.user,
    password: password ?? DEFAULT_LOGIN.password,
  });
  const tests = credentials(job, DEFAULT_LOGIN);
  if (login.user !== tests.user || login.password !== tests.password) {
    log.warning(
      `The device gets the user of the provision_plan, ${login.user}; what logs in as the job's ` +
        `test_username (${tests.user}) needs the same name and password there`,
    );
  }
  return login;
}

/** @throws ProvisioningError when one of them is no URL. */
function imageUrls({ url, urls }: Data): string[] {
  const all = url === undefined ? urls ?? [] : [url];
  for (const text of all) {
    if (URL.canParse(text) && SCHEMES.includes(new URL(text).protocol)) continue;
    throw new ProvisioningError(
      `The job's image '${text}' is no URL that the control host could download: expected http, ` +
        `https or ftp`,
    );
  }
  return all;
}

function planOf(
  { provision_plan: plan, ubuntu_sso_email: email }: Data,
  { user, password }: Credentials,
): Record<string, unknown> {
  if (plan === undefined) return {};
  const asksForAccount = plan.run_stage.some((stage) =>
    loginStage.safeParse(stage).data?.initial_login.method === "console-conf"
  );
  if (asksForAccount && email === undefined) {
    throw new ProvisioningError(
      "The job's provision_plan logs in by console-conf: 'ubuntu_sso_email' must be set, too",
    );
  }
  return {
    custom_provision_plan: {
      ...plan,
      config: { ...plan.config, username: user, password },
    },
  };
}

async function copyKey(ctx: ConnectorContext, login: Credentials): Promise<void> {
  checkUserName(login.user);
  const copied = await copySshKey(ctx, deviceTarget(ctx, login), { force: true });
  if (copied.ok) return;
  throw new ProvisioningError(
    `The device is provisioned, but does not take the agent's ssh key: ${copied.why}; with ` +
      `'agent_ssh_access: false' in the job none is copied`,
  );
}
