import { tryTarget } from "../../fuzz/target.ts";
import { unpacker } from "../../fuzz/unpacker.ts";

Deno.test("no archive touches what is beside the folder, throws, or leaves a part of itself", () =>
  tryTarget(unpacker, 5_000));
