// Ways out of the page: files of other tools, the question as a line for the terminal, the link.

import { download } from "../api/client";
import { parametersOf, type Selection } from "../api/selection";
import type { Tree } from "../flamegraph/tree";
import { commandsOf } from "../format/commands";
import { folded, speedscope, svg } from "../format/exports";
import { copy, save, say } from "./copy";
import { Popover } from "./popover";

export interface ExportMenuProps {
  tree: Tree;
  /** What the tree is called, in files. */
  name: string;
  picture: () => Promise<Blob | null>;
  /** What the server can be asked for; nothing for a file that was dropped. */
  selection?: Selection;
}

export function ExportMenu({ tree, name, picture, selection }: ExportMenuProps) {
  const file = name.replaceAll(/[^A-Za-z0-9._-]+/g, "-").replaceAll(/^-+|-+$/g, "") || "profile";
  const text = (extension: string, type: string, content: string): void => save(`${file}.${extension}`, new Blob([content], { type }));
  const png = async (): Promise<void> => {
    const blob = await picture();
    if (blob === null) say("The picture needs the graph to be shown.");
    else save(`${file}.png`, blob);
  };
  const pprof = async (selection: Selection): Promise<void> => {
    try {
      const [id] = selection.ids;
      const one = selection.ids.length === 1;
      save(`${file}.pb.gz`, await (one ? download(`/api/v1/profiles/${id}`) : download("/api/v1/merge", parametersOf(selection))));
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
              {selection === undefined ? null : item("pprof", () => void pprof(selection))}
              {item("Folded stacks", () => text("folded", "text/plain", folded(tree)))}
              {item("speedscope", () => text("speedscope.json", "application/json", speedscope(tree, name)))}
              {item("SVG", () => text("svg", "image/svg+xml", svg(tree, name)))}
              {item("PNG, as shown", () => void png())}
            </ul>
            {selection === undefined ? null : (
              <>
                <h3>Copy as a command</h3>
                <ul>
                  {commandsOf(selection, location.origin, Date.now()).map(({ name, line }) =>
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
