// The merge of a selection as a tree on the page.

import { useMemo, useState } from "react";

import { number, type MergeAnswer } from "../api/answers";
import { parametersOf, type Selection } from "../api/selection";
import { treeOf } from "../flamegraph/tree";
import { count } from "../format/values";
import { States, useAnswer } from "./answer";
import { ExportMenu, mergeSource } from "./export_menu";
import { GraphPanel } from "./graph_panel";
import { changed, go, paramsOf } from "./place";

/** How many frames are asked for at first: what 60 pictures a second can bear many times over. All are one press away. */
export const NODES_MAX = 200_000;

/** Says what a selection is, for titles and files. */
export function titleOf(selection: Selection): string {
  const what = selection.ids.length > 0 ? count(selection.ids.length, "picked profile") : selection.query || "everything";
  return `${selection.type} of ${what}`;
}

/** Goes to the page about a function. */
export function openFunction(selection: Selection, name: string): void {
  go("/function", changed(paramsOf(selection), { name }));
}

export function MergedGraph({ selection, refresh }: { selection: Selection; refresh: number }) {
  const [limit, setLimit] = useState(NODES_MAX);
  const parameters = { ...parametersOf(selection), sample_type: selection.sampleType, format: "flamegraph", limit };
  const merged = useAnswer<MergeAnswer>("/api/v1/merge", parameters, refresh);
  const tree = useMemo(() => (merged.data?.flamegraph === undefined ? undefined : treeOf(merged.data.flamegraph)), [merged.data]);
  return (
    <States asked={merged} what="the flame graph" whenNone="No profiles of this type in this time range.">
      {(answer) =>
        tree === undefined ? null : number(answer.profiles) === 0 ? (
          <p className="state">No profiles of this type in this time range.</p>
        ) : (
          <>
            <GraphPanel
              tree={tree}
              label={`${titleOf(selection)}, ${count(number(answer.profiles), "profile")} merged`}
              tools={(shown, picture) => (
                <ExportMenu tree={shown} name={titleOf(selection)} picture={picture} source={mergeSource(selection)} />
              )}
              onFunction={selection.ids.length > 0 ? undefined : (name) => openFunction(selection, name)}
            />
            <p className="hint">
              {count(number(answer.profiles), "profile")} merged, answered in {Math.round(merged.millis)} ms.
              {tree.truncated > 0 ? (
                <button type="button" onClick={() => setLimit(0)}>
                  Load all frames
                </button>
              ) : null}
            </p>
          </>
        )
      }
    </States>
  );
}
