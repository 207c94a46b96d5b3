// A tree and all ways to look at it: flame graph, table, call tree, sandwich, with the tools that change it. Its state is in the link:
//
//   view      both, graph, table or tree          dir       icicle or flame
//   search    text, "exact", /regex/              colour    package, type, function or plain; by change in a comparison
//   focus, hide (repeated)   as search            collapse  1: recursion taken together
//   sandwich  a function's name                   zoom      a frame (flamegraph/zoom.ts)

import { useDeferredValue, useMemo, useRef, useState, type ReactNode } from "react";

import { FlameCanvas, type FlameCanvasHandle, type FrameAction } from "../flamegraph/canvas";
import { colouringOf } from "../flamegraph/colour";
import {
  collapsed,
  exactly,
  focused,
  functionsOf,
  hidden,
  matchedTotal,
  matching,
} from "../flamegraph/transform";
import { isDiff, type Origin, type Tree } from "../flamegraph/tree";
import { markOf, nodeOf } from "../flamegraph/zoom";
import { kindOf } from "../format/kinds";
import { count, percent, value } from "../format/values";
import { CallTree } from "./call_tree";
import { copy, say } from "./copy";
import { FrameMenu } from "./frame_menu";
import { Legend } from "./legend";
import { change, usePlace } from "./place";
import { useRelated, type OtherTypes } from "./related";
import { Sandwich } from "./sandwich";
import { SourceSettings, useSource, type SourceOf } from "./source";
import { useTheme } from "./theme";
import { TopTable } from "./top_table";

const VIEWS = [
  { id: "both", name: "Table and graph" },
  { id: "graph", name: "Graph" },
  { id: "table", name: "Table" },
  { id: "tree", name: "Call tree" },
];

export interface GraphPanelProps {
  tree: Tree;
  /** What the tree is of, for screen readers and files. */
  label: string;
  /** More tools at the end of the row, such as the export menu. */
  tools?: (shown: Tree, picture: () => Promise<Blob | null>) => ReactNode;
  /** A page about one function, where there is one. */
  onFunction?: ((name: string) => void) | undefined;
  /** Of which service and version it is, for links to the source. */
  source?: SourceOf;
  /** The profile's other sample types, for tooltips. */
  others?: OtherTypes | undefined;
  /** What is shown where the link does not say: where there is little room, the graph alone. */
  viewUsual?: "both" | "graph";
}

const NO_SOURCE: SourceOf = { service: "", version: "" };

/** What a link does to a tree. */
interface Changes {
  focus: string;
  /** One in a line. */
  hide: string;
  collapse: boolean;
}

/** The tree as the link wants it: for the table, and for the graph, where recursion may be collapsed. */
function shownOf(tree: Tree, { focus, hide, collapse }: Changes): { whole: Tree; shown: Tree } {
  let whole = tree;
  for (const text of hide.split("\n")) {
    const mask = matching(whole, text);
    if (mask !== undefined) whole = hidden(whole, mask);
  }
  const mask = matching(whole, focus);
  if (mask !== undefined) whole = focused(whole, mask);
  return { whole, shown: collapse ? collapsed(whole) : whole };
}

export function GraphPanel({ tree, label, tools, onFunction, source = NO_SOURCE, others, viewUsual = "both" }: GraphPanelProps) {
  const { params } = usePlace();
  const theme = useTheme();
  const focus = params.get("focus") ?? "";
  const hide = params.getAll("hide").join("\n");
  const collapse = params.get("collapse") === "1";
  const changes = useMemo(() => ({ focus, hide, collapse }), [focus, hide, collapse]);
  const { whole, shown } = useMemo(() => shownOf(tree, changes), [tree, changes]);
  const { related, want } = useRelated(others, tree.sampleType);
  const otherTrees = useMemo(
    () => related.map((other) => ({ ...other, tree: other.tree && shownOf(other.tree, changes).shown })),
    [related, changes],
  );
  const { urlOf } = useSource(source);
  const example = useMemo(() => exampleOf(tree), [tree]);
  const view = params.get("view") ?? viewUsual;
  const search = params.get("search") ?? "";
  const sandwich = params.get("sandwich") ?? "";
  const isFlame = params.get("dir") === "flame";
  const colouring = colouringOf(params.get("colour"), tree);
  const searched = useDeferredValue(search);
  const matches = useMemo(() => matching(shown, searched), [shown, searched]);
  const functions = useMemo(() => functionsOf(whole), [whole]);
  const mark = params.get("zoom") ?? "";
  const zoomed = useMemo(() => nodeOf(shown, mark), [shown, mark]);
  const canvas = useRef<FlameCanvasHandle>(null);
  const [menu, setMenu] = useState<{ name: string; tree: Tree; node: number; x: number; y: number }>();

  const act = (of: Tree, action: FrameAction, node: number, at: { x: number; y: number }): void => {
    const name = of.names[of.name[node]];
    switch (action) {
      case "zoom":
        // Only the whole graph has a zoom in the link; parts of a sandwich are looked at from their own root.
        if (of === shown) change({ zoom: markOf(of, node === zoomed ? 0 : node) });
        else change({ sandwich: name });
        break;
      case "menu":
        setMenu({ name, tree: of, node, ...at });
        break;
      case "copy":
        void copy(name, "the name");
        break;
      case "sandwich":
        if (node !== 0) change({ sandwich: name, zoom: undefined });
        break;
      case "focus":
        if (node !== 0) change({ focus: exactly(name), zoom: undefined });
        break;
      case "hide":
        if (node !== 0) change({ hide: [...params.getAll("hide"), exactly(name)], zoom: undefined });
        break;
      case "search":
        change({ search: exactly(name) });
        break;
      case "collapse":
        change({ collapse: "1" });
        break;
      case "source": {
        const url = urlOf(of.origins.get(name));
        if (url === undefined) say(`${name} has no link: see “Source links”`);
        else window.open(url, "_blank", "noopener,noreferrer");
        break;
      }
    }
  };

  const graph =
    sandwich !== "" ? (
      <Sandwich
        key={sandwich}
        tree={shown}
        name={sandwich}
        theme={theme}
        colouring={colouring}
        matches={searched}
        others={otherTrees}
        onRest={want}
        onAction={act}
      />
    ) : (
      <FlameCanvas
        ref={canvas}
        tree={shown}
        label={`Flame graph of ${label}`}
        colouring={colouring}
        theme={theme}
        isFlame={isFlame}
        matches={matches}
        zoomed={zoomed}
        others={otherTrees}
        onRest={want}
        onAction={(action, node, at) => act(shown, action, node, at)}
      />
    );
  const table = (
    <TopTable
      functions={functions}
      shown={shown}
      search={searched}
      selected={sandwich}
      urlOf={urlOf}
      onSearch={(name) => change({ search: search === exactly(name) ? "" : exactly(name) })}
      onSandwich={(name) => change({ sandwich: sandwich === name ? "" : name, zoom: undefined })}
      onFunction={onFunction}
    />
  );

  return (
    <section className="panel" aria-label={label}>
      <div className="tools" role="toolbar" aria-label="Views and tools">
        <div className="segmented" role="group" aria-label="View">
          {VIEWS.map(({ id, name }) => (
            <button key={id} type="button" aria-pressed={view === id} onClick={() => change({ view: id === viewUsual ? "" : id })}>
              {name}
            </button>
          ))}
        </div>
        <div className="search-field">
          <input
            // Not of type search, whose Escape empties it.
            type="text"
            role="searchbox"
            value={search}
            placeholder="Search: text, &quot;exact&quot;, /regex/"
            aria-label="Search functions"
            data-shortcut="search"
            spellCheck={false}
            onChange={(event) => change({ search: event.target.value }, true)}
            onKeyDown={(event) => {
              if (event.key === "Enter" && search !== "") change({ focus: search, zoom: undefined });
            }}
          />
          <span className="match" role="status" data-testid="match">
            {matches === undefined ? "" : `${percent(matchedTotal(shown, matches) / shown.total[0])} matched`}
          </span>
        </div>
        <button
          type="button"
          title="Where the root is: on top (icicle) or below (flame)"
          aria-pressed={isFlame}
          onClick={() => change({ dir: isFlame ? "" : "flame" })}
        >
          {isFlame ? "Flame ↑" : "Icicle ↓"}
        </button>
        <label className="field inline">
          <span>Colour</span>
          <select
            value={colouring}
            onChange={(event) => change({ colour: event.target.value === colouringOf(null, tree) ? "" : event.target.value })}
          >
            {isDiff(tree) ? <option value="diff">by change</option> : null}
            <option value="package">by package</option>
            <option value="type">by type</option>
            <option value="function">by function</option>
            <option value="plain">plain</option>
          </select>
        </label>
        <button
          type="button"
          title="Take recursive calls together"
          aria-pressed={params.get("collapse") === "1"}
          onClick={() => change({ collapse: params.get("collapse") === "1" ? "" : "1", zoom: undefined })}
        >
          Collapse recursion
        </button>
        <SourceSettings of={source} example={example} />
        {tools?.(shown, () => canvas.current?.toBlob() ?? Promise.resolve(null))}
      </div>
      <Chips params={params} zoomed={zoomed === 0 ? "" : shown.names[shown.name[zoomed]]} />
      <p className="summary">
        <strong>{value(shown.total[0], shown.sampleType.unit)}</strong> {shown.sampleType.type}
        {shown.total[0] === tree.total[0] ? null : ` of ${value(tree.total[0], tree.sampleType.unit)}`} ·{" "}
        {count(functions.length, "function")} · {count(shown.count, "frame")}
        {tree.truncated > 0 ? ` · ${count(tree.truncated, "small frame")} left out` : ""}
      </p>
      <Legend tree={shown} colouring={colouring} theme={theme} />
      {tree.total[0] === 0 && !isDiff(tree) ? (
        <p className="state">No samples have a value of this kind in this selection.</p>
      ) : shown.total[0] === 0 && !isDiff(tree) ? (
        <p className="state">Nothing is left: no stack matches the focus.</p>
      ) : (
        <div className={`split ${view}`}>
          {view === "tree" ? <CallTree tree={shown} search={matches} onAction={(a, node, at) => act(shown, a, node, at)} /> : null}
          {view === "both" || view === "table" ? table : null}
          {view === "both" || view === "graph" ? <div className="graph">{graph}</div> : null}
        </div>
      )}
      {menu === undefined ? null : (
        <FrameMenu
          {...menu}
          onClose={() => setMenu(undefined)}
          onAction={(action) => act(menu.tree, action, menu.node, menu)}
          onFunction={onFunction}
          source={urlOf(menu.tree.origins.get(menu.name))}
        />
      )}
    </section>
  );
}

/** Finds a place of the reader's own code to show what links lead to. */
function exampleOf(tree: Tree): Origin | undefined {
  for (const [name, origin] of tree.origins) if (origin.file !== "" && kindOf(name, origin) === "own") return origin;
  return undefined;
}

/** What changes the tree, each to be taken away. */
function Chips({ params, zoomed }: { params: URLSearchParams; zoomed: string }) {
  const focus = params.get("focus") ?? "";
  const hides = params.getAll("hide");
  const sandwich = params.get("sandwich") ?? "";
  const chips = [
    ...(focus === "" ? [] : [{ key: "focus", text: `Focus: ${focus}`, away: { focus: "" } }]),
    ...hides.map((hide) => ({ key: `hide ${hide}`, text: `Hidden: ${hide}`, away: { hide: hides.filter((one) => one !== hide) } })),
    ...(sandwich === "" ? [] : [{ key: "sandwich", text: `Callers and callees: ${sandwich}`, away: { sandwich: "" } }]),
    ...(zoomed === "" || sandwich !== "" ? [] : [{ key: "zoom", text: `Zoomed: ${zoomed}`, away: { zoom: "" } }]),
  ];
  if (chips.length === 0) return null;
  return (
    <div className="chips">
      {chips.map(({ key, text, away }) => (
        <button key={key} type="button" className="chip" title={text} onClick={() => change(away)}>
          <span>{text}</span> <span aria-hidden="true">×</span>
          <span className="unseen">remove</span>
        </button>
      ))}
    </div>
  );
}
