// Two selections against each other: one graph and table of what changed, or both side by side. The base is `base_query`, `base_start`,
// `base_end` in the link; where one is missing it is the selection's own.

import { useMemo, useState } from "react";

import { number, type DiffAnswer, type MergeAnswer, type TypesAnswer } from "../api/answers";
import { parametersOf, selectionOf, START_DEFAULT, type Selection } from "../api/selection";
import { treeOf, type Tree } from "../flamegraph/tree";
import { range } from "../format/times";
import { change as changeOf, count, ratio, value } from "../format/values";
import { States, useAnswer } from "./answer";
import { diffSource, ExportMenu } from "./export_menu";
import { GraphPanel } from "./graph_panel";
import { NODES_MAX, openFunction, othersOf } from "./merged_graph";
import { change, usePlace } from "./place";
import { RangeInput } from "./range_input";
import { NoType, SelectionBar, typeOf, useTypes } from "./selection_bar";
import { SelectorInput } from "./selector_input";
import { sourceOf } from "./source";

export function Compare() {
  const { params } = usePlace();
  const [refresh, setRefresh] = useState(0);
  const asked = { ...selectionOf(params), ids: [] };
  const typesAsked = useTypes(asked, refresh);
  const types = typesAsked.data;
  const selection = { ...asked, type: typeOf(asked, types) };
  const base: Selection = {
    ...selection,
    query: params.get("base_query") ?? selection.query,
    start: params.get("base_start") ?? selection.start,
    end: params.get("base_start") === null ? selection.end : (params.get("base_end") ?? ""),
  };
  const isSame = base.query === selection.query && base.start === selection.start && base.end === selection.end;
  return (
    <main>
      <h1>Compare</h1>
      <section aria-label="What is compared" className="sides">
        <h2>After</h2>
        <SelectionBar selection={asked} types={types} onRefresh={() => setRefresh(refresh + 1)} />
        <h2>Before</h2>
        <div className="bar" role="search" aria-label="Base">
          <SelectorInput
            label="Selector of the base"
            value={base.query}
            start={base.start}
            end={base.end}
            onChange={(query) => change({ base_query: query })}
          />
          <RangeInput start={base.start} end={base.end} onChange={(start, end) => change({ base_start: start, base_end: end })} />
          <button
            type="button"
            onClick={() =>
              change({
                query: base.query,
                start: base.start,
                end: base.end,
                base_query: selection.query,
                base_start: selection.start === "" ? START_DEFAULT : selection.start,
                base_end: selection.end,
              })
            }
          >
            Swap
          </button>
        </div>
      </section>
      {isSame ? (
        <p className="state">Both sides are the same. Choose another selector or another time range for “Before”.</p>
      ) : selection.type === "" ? (
        <NoType types={typesAsked} />
      ) : params.get("sides") === "1" ? (
        <SideBySide selection={selection} base={base} refresh={refresh} types={types} />
      ) : (
        <Difference selection={selection} base={base} refresh={refresh} types={types} />
      )}
    </main>
  );
}

function SidesButton() {
  const { params } = usePlace();
  const isBoth = params.get("sides") === "1";
  return (
    <button type="button" aria-pressed={isBoth} onClick={() => change({ sides: isBoth ? "" : "1", zoom: undefined })}>
      Side by side
    </button>
  );
}

interface SidesProps {
  selection: Selection;
  base: Selection;
  refresh: number;
  types: TypesAnswer | undefined;
}

function Difference({ selection, base, refresh, types }: SidesProps) {
  const { params } = usePlace();
  const isShares = params.get("normalize") !== "0";
  const parameters = {
    ...parametersOf(selection),
    base_query: base.query === "" ? "{}" : base.query,
    base_start: base.start === "" ? START_DEFAULT : base.start,
    // Left out, it would be where the base is as long as the selection.
    base_end: base.end === "" ? "now" : base.end,
    sample_type: selection.sampleType,
    format: "flamegraph",
    limit: NODES_MAX,
    normalize: isShares,
  };
  const diff = useAnswer<DiffAnswer>("/api/v1/diff", parameters, refresh);
  const tree = useMemo(() => (diff.data?.flamegraph === undefined ? undefined : treeOf(diff.data.flamegraph, true)), [diff.data]);
  const title = `${selection.type}: ${selection.query} against ${base.query}`;
  return (
    <States asked={diff} what="the comparison" whenNone="Nothing to compare: one side has no profiles.">
      {(answer) =>
        tree === undefined ? null : (
          <>
            <Verdict tree={tree} answer={answer} base={base} selection={selection} isShares={isShares} />
            <div className="tabs">
              <button
                type="button"
                title="Scale the base to the same total, so that only what moved is coloured; else plain values"
                aria-pressed={isShares}
                onClick={() => change({ normalize: isShares ? "0" : "" })}
              >
                Compare shares
              </button>
              <SidesButton />
            </div>
            <GraphPanel
              tree={tree}
              label={title}
              tools={(shown, picture) => <ExportMenu tree={shown} name={title} picture={picture} source={diffSource(parameters)} />}
              source={sourceOf(selection)}
              others={othersOf(selection, types, "/api/v1/diff", parameters, true)}
              onFunction={(name) => openFunction(selection, name)}
            />
          </>
        )
      }
    </States>
  );
}

interface VerdictProps {
  tree: Tree;
  answer: DiffAnswer;
  selection: Selection;
  base: Selection;
  isShares: boolean;
}

/** What the comparison says in a line. */
function Verdict({ tree, answer, selection, base, isShares }: VerdictProps) {
  const unit = tree.sampleType.unit;
  const [after, before] = [number(answer.profiles), number(answer.baseProfiles)];
  const missing = after === 0 ? selection : before === 0 ? base : undefined;
  if (missing !== undefined) {
    return (
      <p className="notes" role="status">
        No profiles on the side of {range(missing.start || START_DEFAULT, missing.end)} {missing.query}: everything on the other is shown as{" "}
        {after === 0 ? "gone" : "new"}.
      </p>
    );
  }
  return (
    <p className="summary">
      {isShares
        ? `After: ${count(after, "profile")}. Before: ${count(before, "profile")}. Both scaled to the same total: what is coloured has another share.`
        : `After: ${count(after, "profile")}, ${value(tree.total[0], unit)}. Before: ${count(before, "profile")}, ${value(tree.baseTotal[0], unit)}. ` +
          `Change: ${changeOf(tree.total[0] - tree.baseTotal[0], unit)} (${ratio(tree.total[0], tree.baseTotal[0])}).`}
    </p>
  );
}

function SideBySide({ selection, base, refresh, types }: SidesProps) {
  return (
    <>
      <div className="tabs">
        <SidesButton />
      </div>
      <div className="pair">
        <Side selection={base} name="Before" refresh={refresh} types={types} />
        <Side selection={selection} name="After" refresh={refresh} types={types} />
      </div>
    </>
  );
}

interface SideProps {
  selection: Selection;
  name: string;
  refresh: number;
  types: TypesAnswer | undefined;
}

function Side({ selection, name, refresh, types }: SideProps) {
  const parameters = { ...parametersOf(selection), sample_type: selection.sampleType, format: "flamegraph", limit: NODES_MAX };
  const merged = useAnswer<MergeAnswer>("/api/v1/merge", parameters, refresh);
  const tree = useMemo(() => (merged.data?.flamegraph === undefined ? undefined : treeOf(merged.data.flamegraph)), [merged.data]);
  return (
    <div>
      <h2>
        {name}: {range(selection.start || START_DEFAULT, selection.end)} <code>{selection.query}</code>
      </h2>
      <States asked={merged} what={name} whenNone="No profiles of this type in this time range.">
        {() =>
          tree === undefined ? null : (
            <GraphPanel
              tree={tree}
              label={name}
              viewUsual="graph"
              source={sourceOf(selection)}
              others={othersOf(selection, types, "/api/v1/merge", parameters)}
              onFunction={(fn) => openFunction(selection, fn)}
            />
          )
        }
      </States>
    </div>
  );
}
