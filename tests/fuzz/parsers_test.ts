import { blockMaps } from "./block_maps.ts";
import { configuration } from "./configuration.ts";
import { connectorFiles, journals } from "./files.ts";
import { jobs } from "./job.ts";
import { jsonScanner } from "./json_scanner.ts";
import { serverAnswers } from "./server_answers.ts";
import { tryTarget } from "./target.ts";

const CASES = 10_000;

Deno.test("any configuration file is read, or its mistakes are named in a line each", () =>
  tryTarget(configuration, CASES));

Deno.test("any answer to the question for a job is a job that can be run, or a failure", () =>
  tryTarget(jobs, CASES));

Deno.test("whatever a server answers, every call of the client ends in an answer of its own", () =>
  tryTarget(serverAnswers, CASES));

Deno.test("any result of a job is read in any pieces, or is known not to be one", () =>
  tryTarget(jsonScanner, CASES));

Deno.test("any journal of a job can be read back as far as it goes", () =>
  tryTarget(journals, CASES));

Deno.test("whatever a job leaves in the files of its device connector is harmless", () =>
  tryTarget(connectorFiles, CASES));

Deno.test("any block map of an image is refused, or names ranges that lie in the image", () =>
  tryTarget(blockMaps, CASES));
