import { assert, assertEquals, assertRejects } from "@std/assert";
import { parse } from "yaml";
import * as z from "zod";
import { type Emit, emitterOf } from "../../lib/observe/events.ts";
import { createMetrics } from "../../lib/observe/metrics.ts";
import { FakeClock } from "../support/fake_clock.ts";

const FOLDER = new URL("../../docs/monitoring/", import.meta.url).pathname;

const Alerts = z.object({
  groups: z.array(z.object({ rules: z.array(z.object({ alert: z.string(), expr: z.string() })) })),
});
const Dashboard = z.object({
  panels: z.array(
    z.object({ title: z.string(), targets: z.array(z.object({ expr: z.string() })) }),
  ),
  templating: z.object({ list: z.array(z.object({ query: z.string() })) }),
});

/** What a host serves whose agents have each run a job, met an outage and a cancellation. */
async function served(agents = ["agent-1"]): Promise<string> {
  const clock = new FakeClock();
  const metrics = await createMetrics({ version: "1.2.3", clock });
  for (const agent of agents) {
    metrics.add(agent, "id-1", "/nonexistent/images");
    happens(emitterOf(agent, { clock, sink: metrics.sink }));
  }
  return await metrics.text();
}

function happens(emit: Emit): void {
  emit({ type: "mode", state: "waiting", comment: "" });
  emit({ type: "job_began", job: "x", queue: "q" });
  emit({
    type: "phase_ended",
    job: "j",
    phase: "test",
    status: 1,
    event: "test_fail",
    seconds: 70,
    release: "22.04.5",
  });
  emit({ type: "output", job: "j", bytes: new Uint8Array(10) });
  emit({ type: "connectivity", ok: true });
  emit({ type: "cancelled", job: "j", latencyMs: 300 });
  emit({ type: "undelivered", bytes: 1, fragments: 1, jobs: 1 });
  emit({ type: "free_space", bytes: 1e12 });
  emit({ type: "job_ended", job: "j", reason: "normal_exit", failed: "test" });
}

/** Names of series, and the labels that they have. */
function seriesOf(text: string): Map<string, Set<string>> {
  const series = new Map<string, Set<string>>();
  for (const line of text.split("\n")) {
    const [, name, labels = ""] = /^([a-z_]+)(?:\{(.*)\})? /.exec(line) ?? [];
    if (name === undefined) continue;
    const known = series.get(name) ?? new Set();
    for (const [, label] of labels.matchAll(/(?:^|,)([a-z_]+)="/g)) known.add(label ?? "");
    series.set(name, known);
  }
  return series;
}

/** Labels that the scraper adds. */
const SCRAPED = ["job", "instance"];

/** What an expression uses that is not served. */
function unknownIn(expression: string, series: Map<string, Set<string>>): string[] {
  const unknown: string[] = [];
  const bare = expression.replaceAll(/"[^"]*"/g, '""');
  for (const [, name, labels] of bare.matchAll(/([a-z_]+_[a-z_]+)\s*(\{[^}]*\})?(?!\w*\s*\()/g)) {
    const isFunction =
      /^(histogram_quantile|min_over_time|label_values|group_left|agent_id|test_phase)$/;
    if (name === undefined || isFunction.test(name)) continue;
    const known = series.get(name);
    if (known === undefined) unknown.push(name);
    for (const [, label] of labels?.matchAll(/([a-z_]+)\s*[=!]/g) ?? []) {
      const isKnown = known?.has(label ?? "") || SCRAPED.includes(label ?? "");
      if (!isKnown) unknown.push(`${name}{${label}}`);
    }
  }
  for (const [, list] of bare.matchAll(/\bby \(([^)]*)\)/g)) {
    for (const label of list?.split(/,\s*/) ?? []) {
      if (![...series.values()].some((labels) => labels.has(label))) unknown.push(`by ${label}`);
    }
  }
  return unknown;
}

async function expressions(): Promise<string[]> {
  const alerts = Alerts.parse(parse(await Deno.readTextFile(`${FOLDER}alerts.yaml`)));
  const dashboard = Dashboard.parse(
    JSON.parse(await Deno.readTextFile(`${FOLDER}grafana-dashboard.json`)),
  );
  return [
    ...alerts.groups.flatMap(({ rules }) => rules.map(({ expr }) => expr)),
    ...dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)),
    ...dashboard.templating.list.map(({ query }) => query).filter((query) =>
      query !== "prometheus"
    ),
  ];
}

Deno.test("dashboard and alerts use only metrics and labels that an agent serves", async () => {
  const series = seriesOf(await served());
  for (const expression of await expressions()) {
    assertEquals(unknownIn(expression, series), [], expression);
  }
});

Deno.test("the dashboard shows every metric that an agent serves", async () => {
  const names = [...(await served()).matchAll(/^# TYPE ([a-z_]+) /gm)].map(([, name]) =>
    name ?? ""
  );
  const all = (await expressions()).join("\n");
  assertEquals(names.filter((name) => !all.includes(name)), []);
});

Deno.test("docs/monitoring/README.md lists every metric that an agent serves, as it is, and no other", async () => {
  const text = await served();
  const help = new Map(
    [...text.matchAll(/^# HELP (\w+) (.*?)\.?$/gm)].map(([, name, words]) => [name, words]),
  );
  const serves = [...text.matchAll(/^# TYPE (\w+) (\w+)$/gm)]
    .map(([, name, type]) => `${name} ${type} ${help.get(name)}`);
  const page = await Deno.readTextFile(`${FOLDER}README.md`);
  const listed = [...page.matchAll(/^\| `(\w+)` +\| (\w+) +\| (.*?) +\|$/gm)]
    .map(([, name, type, words]) => `${name} ${type} ${words}`);
  assertEquals(listed.toSorted(), serves.toSorted());
});

Deno.test("the check can fail: a metric or a label that no agent serves is found", () => {
  const series = new Map([["jobs_total", new Set(["agent_id"])]]);
  assertEquals(unknownIn('rate(job_total{agent_id="x"}[1h])', series), [
    "job_total",
    "job_total{agent_id}",
  ]);
  assertEquals(unknownIn('sum by (queue) (jobs_total{name=~"x"})', series), [
    "jobs_total{name}",
    "by queue",
  ]);
  assertEquals(unknownIn('sum by (agent_id) (rate(jobs_total{job="x"}[5m]))', series), []);
});

/**
 * The dashboard's type, of Grafana's own schema (its package `@grafana/schema`): the dashboard as a whole, and the
 * options of each kind of panel. In a file, an enumeration is one of its values.
 */
const SCHEMA = `
import type { Dashboard, DataQuery, Panel } from "@grafana/schema";
import type * as bargauge from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

type Written<T> = T extends string ? \`\${T}\`
  : T extends object ? { [Key in keyof T]?: Written<T[Key]> } : T;
type Kind<Type, Options, Custom> = Omit<Panel, "type" | "options" | "targets" | "fieldConfig"> & {
  type: Type;
  options: Written<Options>;
  fieldConfig: Panel<Options, Written<Custom>>["fieldConfig"];
  targets: (DataQuery & { expr: string; legendFormat: string })[];
};
type AnyPanel =
  | Kind<"bargauge", bargauge.Options, Record<string, never>>
  | Kind<"stat", stat.Options, Record<string, never>>
  | Kind<"timeseries", timeseries.Options, timeseries.FieldConfig>;
type Checked = Omit<Dashboard, "panels"> & { panels: AnyPanel[] };
`;

Deno.test("the dashboard is one by Grafana's own schema, with the options that its kinds of panels have", async () => {
  const dashboard = await Deno.readTextFile(`${FOLDER}grafana-dashboard.json`);
  const [first] = JSON.parse(dashboard).panels;
  const wrong = [
    { title: 1 },
    { schemaVersion: 39, refrsh: "1m" },
    { panels: [{ ...first, type: "bar-gauge" }] },
    { panels: [{ ...first, options: { orientation: "sideways" } }] },
    { panels: [{ ...first, gridPos: { x: 0, y: 0, w: 8 } }] },
    { panels: [{ ...first, targets: [{ expr: "up", legendFormat: "" }] }] },
  ];
  const folder = await Deno.makeTempDir();
  const file = `${folder}/dashboard.ts`;
  await Deno.writeTextFile(
    file,
    [
      SCHEMA,
      `export const dashboard: Checked = ${dashboard};`,
      // The check itself is checked: each of these has to be refused.
      "type Part = Partial<Checked>;",
      ...wrong.map((one, n) =>
        `// @ts-expect-error\nexport const wrong${n}: Part = ${JSON.stringify(one)};`
      ),
    ].join("\n"),
  );
  const config = new URL("../deno.json", import.meta.url).pathname;
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["check", "--quiet", `--config=${config}`, file],
    env: { NO_COLOR: "1" },
  }).output();
  await Deno.remove(folder, { recursive: true });
  assert(success, new TextDecoder().decode(stderr));
});

Deno.test("the panels of the dashboard stand side by side, each with a number of its own", async () => {
  const { panels } = z.object({
    panels: z.array(z.object({
      id: z.int(),
      gridPos: z.object({ x: z.int(), y: z.int(), w: z.int(), h: z.int() }),
    })),
  }).parse(
    JSON.parse(await Deno.readTextFile(`${FOLDER}grafana-dashboard.json`)),
  );
  assertEquals(new Set(panels.map(({ id }) => id)).size, panels.length);
  const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
    Array.from(
      { length: w * h },
      (_, n) => `${x + n % w} ${y + Math.floor(n / w)}`,
    )
  );
  assertEquals(
    new Set(cells).size,
    cells.length,
    "two panels lie on each other",
  );
  assert(
    panels.every(({ gridPos: { x, w } }) => x + w <= 24),
    "Grafana's grid has 24 columns",
  );
});

/** Runs promtool; where there is none the test says so, and fails in CI. */
async function promtool(args: string[], input = ""): Promise<void> {
  let child;
  try {
    child = new Deno.Command("promtool", { args, stdin: "piped", stdout: "piped", stderr: "piped" })
      .spawn();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound) || Deno.env.get("CI") === "true") throw error;
    console.warn("skipped: there is no promtool here (Debian's prometheus has it)");
    return;
  }
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assertEquals(code, 0, text);
}

Deno.test("promtool reads the metrics and finds nothing to complain of", async () => {
  await promtool(["check", "metrics"], await served());
});

Deno.test("promtool takes the alert rules", () =>
  promtool(["check", "rules", `${FOLDER}alerts.yaml`]));

/** Has Prometheus itself work out expressions over two hosts, one with two agents and one with one. */
async function evaluate(expressions: readonly string[]): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    // What Grafana puts into an expression.
    const rules = expressions.map((expr, n) => ({
      record: `result:${n}`,
      expr: expr.replaceAll("$agent", ".*"),
    }));
    const test = {
      rule_files: ["rules.yaml"],
      evaluation_interval: "1m",
      tests: [{
        interval: "1m",
        input_series: [
          ...constantSeries(await served(["agent-1", "agent-2"]), "host-1:9100"),
          ...constantSeries(await served(["agent-3"]), "host-2:9100"),
        ],
        promql_expr_test: rules.map(({ record }) => ({
          expr: `absent({__name__="${record}"})`,
          eval_time: "10m",
          exp_samples: [],
        })),
      }],
    };
    // JSON is YAML.
    const groups = [{ name: "dashboard", rules }];
    await Deno.writeTextFile(`${folder}/rules.yaml`, JSON.stringify({ groups }));
    await Deno.writeTextFile(`${folder}/test.yaml`, JSON.stringify(test));
    await promtool(["test", "rules", `${folder}/test.yaml`]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Each line of the metrics as a series that stays as it is, with the labels of a scraper. */
function constantSeries(text: string, instance: string): { series: string; values: string }[] {
  return [...text.matchAll(/^([a-z_]+)(?:\{(.*)\})? (\S+)$/gm)].map(([, name, labels, value]) => ({
    series: `${name}{${labels === undefined ? "" : `${labels},`}instance="${instance}",` +
      `job="testflinger-agent"}`,
    values: `${Number(value)}+0x20`,
  }));
}

Deno.test("every panel of the dashboard has something to show of hosts with one and with several agents", async () => {
  const dashboard = Dashboard.parse(
    JSON.parse(await Deno.readTextFile(`${FOLDER}grafana-dashboard.json`)),
  );
  await evaluate(dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)));
});

Deno.test("an expression that cannot be worked out for several agents of a host is found", async () => {
  const wrong = "process_resident_memory_bytes * on (instance) group_left (agent_id) " +
    "testflinger_agent_info";
  await assertRejects(() => evaluate([wrong]), Error, "duplicate series");
});
