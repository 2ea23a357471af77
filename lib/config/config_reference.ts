/** The reference of the configuration file, made from its schema. */
import * as z from "zod";
import { AgentConfig } from "./agent_config.ts";

/** One key of the configuration file. */
export interface KeyReference {
  key: string;
  /** Such as `text`, `list of text`, `integer, seconds`. */
  type: string;
  required: boolean;
  /** As it would be in the file; undefined where there is none. */
  default: string | undefined;
  meaning: string;
}

/** Every key of an agent's configuration file, in the order in which to explain them. */
export function configReference(): KeyReference[] {
  return keyReferences(AgentConfig.shape);
}

/** Every key of a mapping, from its schemas. */
export function keyReferences(shape: Readonly<Record<string, z.ZodType>>): KeyReference[] {
  return Object.entries(shape).map(([key, schema]) => ({
    key,
    type: typeText(schema),
    required: !acceptsNothing(schema),
    default: defaultText(schema),
    meaning: schema.description ?? "",
  }));
}

function acceptsNothing(schema: z.ZodType): boolean {
  return schema.safeParse(undefined).success;
}

/** The type of a value in the file, before defaults and transformations. */
function typeText(schema: z.core.$ZodType): string {
  const own = z.globalRegistry.get(schema)?.["type"];
  if (typeof own === "string") return own;
  if (schema instanceof z.ZodString) return "text";
  if (schema instanceof z.ZodBoolean) return "boolean";
  if (schema instanceof z.ZodNumber) return schema.format === "safeint" ? "integer" : "number";
  if (schema instanceof z.ZodEnum) return schema.options.join(" or ");
  if (schema instanceof z.ZodArray) return `list of ${typeText(schema.element)}`;
  if (schema instanceof z.ZodRecord) return `mapping of name to ${typeText(schema.valueType)}`;
  if (schema instanceof z.ZodPipe) return typeText(schema.in);
  const inner = unwrapped(schema);
  if (inner !== undefined) return typeText(inner);
  throw new Error("Cannot name the type of a configuration key: give its schema a 'type' in meta");
}

function unwrapped(schema: z.core.$ZodType): z.core.$ZodType | undefined {
  if (schema instanceof z.ZodOptional) return schema.unwrap();
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) return schema.unwrap();
  return undefined;
}

function defaultText(schema: z.core.$ZodType): string | undefined {
  if (!(schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault)) return undefined;
  const value: unknown = schema.def.defaultValue;
  return value === "" || typeof value === "object" ? JSON.stringify(value) : String(value);
}
