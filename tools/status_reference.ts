/** The rows of a reference of what is answered over HTTP, from the schemas that type it. */
import * as z from "zod";
import { AgentStatus, HostStatus } from "../lib/observe/status_schema.ts";

/** One field: `job.phases[].status`. */
export interface FieldReference {
  path: string;
  type: string;
  /** Whether it may be absent. */
  isOptional: boolean;
  meaning: string;
}

type Node = z.core.JSONSchema.BaseSchema;

/** All fields of a host's status and of an agent's, in the order in which the schemas have them. */
export function statusReference(): { host: FieldReference[]; agent: FieldReference[] } {
  return {
    host: fieldsOf(z.toJSONSchema(HostStatus), ""),
    agent: fieldsOf(z.toJSONSchema(AgentStatus), ""),
  };
}

function fieldsOf(schema: Node, prefix: string): FieldReference[] {
  const required = schema.required ?? [];
  return Object.entries(schema.properties ?? {}).flatMap(([key, value]) => {
    if (typeof value === "boolean") throw new Error(`${prefix}${key}: has no type`);
    const item = value.type === "array" ? itemOf(value) : undefined;
    const inner = item ?? value;
    const path = `${prefix}${key}${item === undefined ? "" : "[]"}`;
    return [
      {
        path,
        type: item === undefined ? typeName(value) : `list of ${typeName(item)}s`,
        isOptional: !required.includes(key),
        meaning: value.description ?? "",
      },
      ...fieldsOf(inner, `${path}.`),
    ];
  });
}

function itemOf({ items }: Node): Node {
  if (typeof items !== "object" || Array.isArray(items)) throw new Error("a list of nothing");
  return items;
}

function typeName({ type, enum: values }: Node): string {
  if (values !== undefined) return values.join(", ");
  return type === "object" || type === undefined ? "object" : String(type);
}
