import { formatMistake } from "../../lib/config/mistake.ts";
import type { YamlResult } from "../../lib/config/yaml_file.ts";

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
