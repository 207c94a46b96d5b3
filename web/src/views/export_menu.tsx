// Ways out of the page: files of other tools, the question as a line for the terminal, the link.

import { download, type Parameters } from "../api/client";
import { parametersOf, type Selection } from "../api/selection";
import type { Tree } from "../flamegraph/tree";
import { commandsOf, diffCommandsOf, type Command } from "../format/commands";
import { folded, speedscope, svg } from "../format/exports";
import { copy, save, say } from "./copy";
import { Popover } from "./popover";

/** What of a tree the server can be asked for. */
export interface Source {
  /** The question whose answer is the pprof. */
  path: string;
  parameters: Parameters;
  commands: (now: number) => Command[];
}

/** The source of a merge; of a single profile the profile itself. */
export function mergeSource(selection: Selection): Source {
  const commands = (now: number): Command[] => commandsOf(selection, location.origin, now);
  if (selection.ids.length === 1) return { path: `/api/v1/profiles/${encodeURIComponent(selection.ids[0])}`, parameters: {}, commands };
  return { path: "/api/v1/merge", parameters: parametersOf(selection), commands };
}

/** The source of a comparison, by the parameters of its question. */
export function diffSource(parameters: Parameters): Source {
  return {
    path: "/api/v1/diff",
    parameters: { ...parameters, format: "pprof", limit: undefined },
    commands: (now) => diffCommandsOf(parameters, location.origin, now),
  };
}

export interface ExportMenuProps {
  tree: Tree;
  /** What the tree is called, in files. */
  name: string;
  picture: () => Promise<Blob | null>;
  /** Nothing for a file that was dropped. */
  source?: Source;
}

export function ExportMenu({ tree, name, picture, source }: ExportMenuProps) {
  const file = name.replaceAll(/[^A-Za-z0-9._-]+/g, "-").replaceAll(/^-+|-+$/g, "") || "profile";
  const text = (extension: string, type: string, content: string): void => save(`${file}.${extension}`, new Blob([content], { type }));
  const png = async (): Promise<void> => {
    const blob = await picture();
    if (blob === null) say("The picture needs the graph to be shown.");
    else save(`${file}.png`, blob);
  };
  const pprof = async ({ path, parameters }: Source): Promise<void> => {
    try {
      save(`${file}.pb.gz`, await download(path, parameters));
    } catch (error) {
      say(error instanceof Error ? error.message : String(error));
    }
  };
  return (
    <Popover label="Export" title="Export" align="end">
      {(close) => {
        const item = (name: string, act: () => void) => (
          <li key={name}>
            <button
              type="button"
              onClick={() => {
                act();
                close();
              }}
            >
              {name}
            </button>
          </li>
        );
        return (
          <div className="export">
            <ul>
              {item("Copy the link", () => void copy(location.href, "the link"))}
              {source === undefined ? null : item("pprof", () => void pprof(source))}
              {item("Folded stacks", () => text("folded", "text/plain", folded(tree)))}
              {item("speedscope", () => text("speedscope.json", "application/json", speedscope(tree, name)))}
              {item("SVG", () => text("svg", "image/svg+xml", svg(tree, name)))}
              {item("PNG, as shown", () => void png())}
            </ul>
            {source === undefined ? null : (
              <>
                <h3>Copy as a command</h3>
                <ul>
                  {source.commands(Date.now()).map(({ name, line }) =>
                    item(name, () => void copy(line, `the ${name} command`)),
                  )}
                </ul>
              </>
            )}
          </div>
        );
      }}
    </Popover>
  );
}
