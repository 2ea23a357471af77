/** What `check` finds, and how it is shown. */
import { formatPath, type Mistake, type Path } from "../../config/mistake.ts";
import type { PlaceOf } from "../../config/yaml_file.ts";

/**
 * A mistake keeps an agent or its jobs from working wherever they run. A warning may be meant so, or
 * is about this host, which need not be the one that the file is for.
 */
export type Severity = "mistake" | "warning";

/** One thing to say about a file. */
export interface Finding extends Mistake {
  severity: Severity;
}

/** Says things about one file whose values have places. */
export type Say = (severity: Severity, path: Path, message: string) => void;

/** A `Say` that adds to `findings`. */
export function sayer(findings: Finding[], file: string, placeOf: PlaceOf): Say {
  return (severity, path, message) =>
    void findings.push({ severity, file, ...placeOf(path), path: formatPath(path), message });
}

/** `file:line:column: warning: path: message`, the form that editors jump to. */
export function formatFinding({ severity, file, line, column, path, message }: Finding): string {
  const place = line > 0 ? `${file}:${line}:${column}` : file;
  return [
    place,
    ...severity === "warning" ? ["warning"] : [],
    ...path === "" ? [] : [path],
    message,
  ].join(": ");
}
