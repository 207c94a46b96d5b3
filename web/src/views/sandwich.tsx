// One function in the middle: who calls it above, what it calls below.

import { useMemo } from "react";

import { FlameCanvas, type FrameAction } from "../flamegraph/canvas";
import type { Colouring } from "../flamegraph/colour";
import type { OtherTree } from "../flamegraph/tooltip";
import { calleesOf, callersOf, matching } from "../flamegraph/transform";
import { isDiff, type Tree } from "../flamegraph/tree";
import { percent, value } from "../format/values";

export interface SandwichProps {
  tree: Tree;
  name: string;
  theme: "light" | "dark";
  colouring: Colouring;
  matches: string;
  others: readonly OtherTree[];
  onRest: () => void;
  onAction: (tree: Tree, action: FrameAction, node: number, at: { x: number; y: number }) => void;
}

export function Sandwich({ tree, name, theme, colouring, matches, others, onRest, onAction }: SandwichProps) {
  const callers = useMemo(() => callersOf(tree, name), [tree, name]);
  const callees = useMemo(() => calleesOf(tree, name), [tree, name]);
  const otherCallers = useMemo(() => others.map((other) => ({ ...other, tree: other.tree && callersOf(other.tree, name) })), [others, name]);
  const otherCallees = useMemo(() => others.map((other) => ({ ...other, tree: other.tree && calleesOf(other.tree, name) })), [others, name]);
  const shared = { theme, colouring, zoomed: 0, onRest };
  if (callees.count === 1 && callees.total[0] === 0 && (!isDiff(tree) || callees.baseTotal[0] === 0)) {
    return <p className="state">{name} does not occur in these profiles.</p>;
  }
  return (
    <div className="sandwich">
      <h3>Callers</h3>
      <FlameCanvas
        {...shared}
        tree={callers}
        others={otherCallers}
        isFlame
        label={`Callers of ${name}`}
        matches={matching(callers, matches)}
        onAction={(action, node, at) => onAction(callers, action, node, at)}
      />
      <h3>
        Callees: {percent(callees.total[0] / tree.total[0])} of all, self {value(callees.self[0], tree.sampleType.unit)}
        {isDiff(tree) ? `; before ${percent(callees.baseTotal[0] / tree.baseTotal[0])}` : ""}
      </h3>
      <FlameCanvas
        {...shared}
        tree={callees}
        others={otherCallees}
        isFlame={false}
        label={`Callees of ${name}`}
        matches={matching(callees, matches)}
        onAction={(action, node, at) => onAction(callees, action, node, at)}
      />
    </div>
  );
}
