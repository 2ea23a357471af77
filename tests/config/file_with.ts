import { assertEquals } from "@std/assert";
import * as z from "zod";
import { formatMistake } from "../../lib/config/mistake.ts";
import {
  readYaml,
  readYamlFile,
  type YamlOptions,
  type YamlResult,
} from "../../lib/config/yaml_file.ts";

/** Gives `use` the path of a real file with that content, and removes it afterwards. */
export async function fileWith<T>(
  content: string | Uint8Array,
  use: (file: string) => Promise<T>,
): Promise<T> {
  const folder = await Deno.makeTempDir();
  try {
    const file = `${folder}/agent.conf`;
    await Deno.writeFile(
      file,
      typeof content === "string" ? new TextEncoder().encode(content) : content,
    );
    return await use(file);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** What a person would read, with the temporary folder taken off the file's name. */
export function complaints(result: YamlResult<unknown>): string[] {
  const mistakes = result.ok ? result.warnings : result.mistakes;
  return mistakes.map((mistake) =>
    formatMistake({ ...mistake, file: mistake.file.split("/").at(-1) ?? "" })
  );
}

/** The value of an accepted file; fails with what was wrong with it otherwise. */
export function accepted<T>(result: YamlResult<T>): T {
  if (!result.ok) throw new Error(`the file was refused:\n${complaints(result).join("\n")}`);
  return result.value;
}

/** What a refused file was refused for. */
export function refusal(result: YamlResult<unknown>): string[] {
  if (result.ok) throw new Error("the file was accepted");
  return complaints(result);
}

/** A schema that any mapping fits. */
export const Anything = z.record(z.string(), z.unknown());

/** A schema with each kind of value that configurations have. */
export const Device = z.strictObject({
  name: z.string(),
  port: z.int().min(1).max(65535).optional(),
  ratio: z.number().gt(0).lt(2).optional(),
  quiet: z.boolean().optional(),
  tags: z.array(z.string()).min(1).optional(),
  mode: z.enum(["fast", "slow"]).optional(),
  env: z.record(z.string(), z.string()).optional(),
  hosts: z.array(z.strictObject({ address: z.string(), port: z.int().optional() })).optional(),
  script: z.union([z.string(), z.array(z.string())]).optional(),
  disk: z.discriminatedUnion("type", [
    z.strictObject({ type: z.literal("lvm"), size: z.int() }),
    z.strictObject({ type: z.literal("flat") }),
  ]).optional(),
  short: z.string().max(3).regex(/^a/).optional(),
});

/** Reads a file with that content. */
export function read(
  content: string | Uint8Array,
  schema: z.ZodType = Anything,
  options?: YamlOptions,
) {
  return fileWith(content, (file) => readYamlFile(file, schema, options));
}

/** What it holds; nothing is odd in it. */
export async function valueOf(content: string, schema?: z.ZodType, options?: YamlOptions) {
  const result = await read(content, schema, options);
  assertEquals(complaints(result), []);
  return accepted(result);
}

/** Why it is refused. */
export async function complaintsAbout(content: string | Uint8Array, schema?: z.ZodType) {
  return refusal(await read(content, schema));
}

/** What is odd in it, though it is accepted. */
export async function warningsAbout(content: string, schema?: z.ZodType) {
  const result = await read(content, schema);
  accepted(result);
  return complaints(result);
}

/** What is wrong with a text, as if it were the file `f`. */
export function refusedText(content: string, schema: z.ZodType) {
  const result = readYaml(new TextEncoder().encode(content), schema, { file: "f" });
  if (result.ok) throw new Error("the file was accepted");
  return result;
}
