// The merge of a selection as a tree on the page.

import { useMemo, useState } from "react";

import { number, type MergeAnswer, type TypesAnswer } from "../api/answers";
import { ask, urlOf, type Parameters } from "../api/client";
import { parametersOf, type Selection } from "../api/selection";
import { treeOf, type Tree } from "../flamegraph/tree";
import { count } from "../format/values";
import { States, useAnswer } from "./answer";
import { ExportMenu, mergeSource } from "./export_menu";
import { GraphPanel } from "./graph_panel";
import { changed, go, paramsOf } from "./place";
import type { OtherTypes } from "./related";
import { sourceOf } from "./source";

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

/** Returns where the trees of a selection's other sample types come from: the same question, for another type. */
export function othersOf(selection: Selection, types: TypesAnswer | undefined, path: string, parameters: Parameters, isDiff = false): OtherTypes | undefined {
  const found = types?.types.find(({ type }) => type === selection.type)?.sampleTypes ?? [];
  if (found.length < 2) return undefined;
  const load = async (type: string, signal: AbortSignal): Promise<Tree> => {
    const { flamegraph } = await ask<MergeAnswer>(path, { ...parameters, sample_type: type }, { signal });
    if (flamegraph === undefined) throw new Error(`the answer for ${type} has no tree`);
    return treeOf(flamegraph, isDiff);
  };
  return { key: urlOf(path, parameters), types: found, load: ({ type }, signal) => load(type, signal) };
}

export interface MergedGraphProps {
  selection: Selection;
  refresh: number;
  /** What sample types there are. */
  types?: TypesAnswer | undefined;
}

export function MergedGraph({ selection, refresh, types }: MergedGraphProps) {
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
              source={sourceOf(selection)}
              others={othersOf(selection, types, "/api/v1/merge", parameters)}
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
