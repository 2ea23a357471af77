/** Everything that takes input from outside. */
import { blockMaps } from "./block_maps.ts";
import { configuration } from "./configuration.ts";
import { connectorFiles, journals } from "./files.ts";
import { jobs } from "./job.ts";
import { jsonScanner } from "./json_scanner.ts";
import { redactor } from "./redactor.ts";
import { serverAnswers } from "./server_answers.ts";
import type { FuzzTarget } from "./target.ts";
import { unpacker } from "./unpacker.ts";

export const TARGETS: readonly FuzzTarget[] = [
  redactor,
  unpacker,
  configuration,
  jobs,
  serverAnswers,
  jsonScanner,
  journals,
  connectorFiles,
  blockMaps,
];
