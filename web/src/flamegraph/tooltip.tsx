// What a frame is, beside the pointer: its name whole, what it has by itself and with all below, of how much; in a comparison also
// before, after and the change.

import { useLayoutEffect, useRef, type RefObject } from "react";

import { change, percent, ratio, value } from "../format/values";
import { shareChange } from "./colour";
import type { Size } from "./paint";
import { isDiff, type Tree } from "./tree";

/** How far it stays from the pointer in CSS pixels. */
const DISTANCE = 14;

export interface TooltipProps {
  tree: Tree;
  node: number;
  x: number;
  y: number;
  /** The size of the graph, whose edges it keeps within. */
  width: RefObject<Size>;
  /** Whether a screen reader should say it: when the keyboard moved. */
  isLive: boolean;
}

export function Tooltip({ tree, node, x, y, width, isLive }: TooltipProps) {
  const element = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const tip = element.current;
    if (tip === null) return;
    const room = width.current.width - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(x + DISTANCE, room))}px`;
    tip.style.top = `${y + DISTANCE}px`;
  });
  const unit = tree.sampleType.unit;
  const whole = tree.total[0];
  const parent = tree.total[tree.parent[node]];
  return (
    <div className="tooltip" ref={element} role={isLive ? "status" : "presentation"}>
      <strong>{tree.names[tree.name[node]]}</strong>
      {isDiff(tree) ? (
        <Difference tree={tree} node={node} />
      ) : (
        <dl>
          <dt>Total</dt>
          <dd>
            {value(tree.total[node], unit)} · {percent(tree.total[node] / whole)} of all
            {node === 0 ? null : ` · ${percent(tree.total[node] / parent)} of its caller`}
          </dd>
          <dt>Self</dt>
          <dd>
            {value(tree.self[node], unit)} · {percent(tree.self[node] / whole)} of all
          </dd>
        </dl>
      )}
    </div>
  );
}

function Difference({ tree, node }: { tree: Tree; node: number }) {
  const unit = tree.sampleType.unit;
  const after = tree.total[node];
  const before = tree.baseTotal[node];
  return (
    <dl>
      <dt>Before</dt>
      <dd>
        {value(before, unit)} · {percent(before / tree.baseTotal[0])}
      </dd>
      <dt>After</dt>
      <dd>
        {value(after, unit)} · {percent(after / tree.total[0])}
      </dd>
      <dt>Change</dt>
      <dd>
        {change(after - before, unit)} ({ratio(after, before)}) · share {percent(shareChange(tree, node))}
      </dd>
    </dl>
  );
}
