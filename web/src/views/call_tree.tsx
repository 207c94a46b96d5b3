// The tree as lines to open and close, heaviest first; the way to the heaviest stack is open from the start.

import { useMemo, useState } from "react";

import type { FrameAction } from "../flamegraph/canvas";
import { isDiff, weight, type Tree } from "../flamegraph/tree";
import { percent, ratio, value } from "../format/values";
import { VirtualRows } from "./virtual_rows";

/** Below this share of its parent a child does not open by itself. */
const OPEN_SHARE = 0.5;

function childrenOf(tree: Tree, node: number): number[] {
  const children: number[] = [];
  for (let child = node + 1; child < tree.end[node]; child = tree.end[child]) children.push(child);
  return children.sort((a, b) => weight(tree, b) - weight(tree, a));
}

function openedAtFirst(tree: Tree): Set<number> {
  const open = new Set<number>();
  for (let node: number | undefined = 0; node !== undefined; ) {
    open.add(node);
    const [heaviest] = childrenOf(tree, node);
    // A leaf has no children, and nothing follows where nothing outweighs the rest.
    node = (heaviest as number | undefined) !== undefined && weight(tree, heaviest) >= OPEN_SHARE * weight(tree, node) ? heaviest : undefined;
  }
  return open;
}

function linesOf(tree: Tree, open: Set<number>): number[] {
  const lines: number[] = [];
  const left = [0];
  for (let node = left.pop(); node !== undefined; node = left.pop()) {
    lines.push(node);
    if (open.has(node)) left.push(...childrenOf(tree, node).reverse());
  }
  return lines;
}

export interface CallTreeProps {
  tree: Tree;
  search: Uint8Array | undefined;
  onAction: (action: FrameAction, node: number, at: { x: number; y: number }) => void;
}

export function CallTree({ tree, search, onAction }: CallTreeProps) {
  const [state, setState] = useState({ tree, open: openedAtFirst(tree), current: 0 });
  // Another tree begins anew.
  if (state.tree !== tree) setState({ tree, open: openedAtFirst(tree), current: 0 });
  const lines = useMemo(() => linesOf(tree, state.tree === tree ? state.open : new Set()), [tree, state]);
  const toggle = (node: number, index: number): void => {
    const open = new Set(state.open);
    if (!open.delete(node)) open.add(node);
    setState({ tree, open, current: index });
  };
  const unit = tree.sampleType.unit;
  return (
    <div className="calls">
      <VirtualRows
        role="treegrid"
        label="Call tree"
        count={lines.length}
        current={Math.min(state.current, lines.length - 1)}
        onCurrent={(current) => setState({ ...state, current })}
        onKey={(event, index) => {
          const node = lines[index];
          const isOpen = state.open.has(node);
          if (event.key === "ArrowRight" && !isOpen) toggle(node, index);
          else if (event.key === "ArrowLeft" && isOpen) toggle(node, index);
          else if (event.key === "ArrowLeft") setState({ ...state, current: lines.indexOf(tree.parent[node]) });
          else if (event.key === "Enter") toggle(node, index);
          else if (event.key === "s") onAction("sandwich", node, { x: 0, y: 0 });
          else if (event.key === "f") onAction("focus", node, { x: 0, y: 0 });
          else if (event.key === "c" && !event.ctrlKey && !event.metaKey) onAction("copy", node, { x: 0, y: 0 });
          else return;
          event.preventDefault();
        }}
        head={
          <div className="row head" role="row">
            <span role="columnheader" className="cell name">
              Function
            </span>
            <span role="columnheader" className="cell">
              Total
            </span>
            <span role="columnheader" className="cell">
              {isDiff(tree) ? "Change" : "%"}
            </span>
            <span role="columnheader" className="cell">
              Self
            </span>
          </div>
        }
        row={(index) => {
          const node = lines[index];
          const isLeaf = tree.end[node] === node + 1;
          const isOpen = state.open.has(node);
          const total = tree.total[node];
          return (
            <div
              key={node}
              className="row"
              role="row"
              aria-level={tree.depth[node] + 1}
              aria-expanded={isLeaf ? undefined : isOpen}
              aria-rowindex={index + 2}
              data-current={index === state.current}
              data-match={search !== undefined && search[tree.name[node]] === 1}
              onClick={() => toggle(node, index)}
              onContextMenu={(event) => {
                event.preventDefault();
                onAction("menu", node, { x: event.clientX, y: event.clientY });
              }}
            >
              <span role="gridcell" className="cell name" title={tree.names[tree.name[node]]} style={{ paddingLeft: 6 + 12 * tree.depth[node] }}>
                <span className="twist" aria-hidden="true">
                  {isLeaf ? "·" : isOpen ? "▾" : "▸"}
                </span>
                {tree.names[tree.name[node]]}
              </span>
              <span role="gridcell" className="cell">
                {value(total, unit)}
              </span>
              <span role="gridcell" className="cell">
                {isDiff(tree) ? ratio(total, tree.baseTotal[node]) : percent(total / tree.total[0])}
              </span>
              <span role="gridcell" className="cell">
                {value(tree.self[node], unit)}
              </span>
            </div>
          );
        }}
      />
    </div>
  );
}
