// What a frame is, beside the pointer: its name whole, where its source is, what it has by itself and with all below, of how much; in a
// comparison also before, after and the change; and the same of the profile's other sample types, once they are there.

import { useEffect, useLayoutEffect, useRef, type RefObject } from "react";

import type { SampleType } from "../api/answers";
import { kindOf, KIND_NAMES } from "../format/kinds";
import { placeOf } from "../format/source";
import { change, percent, ratio, value } from "../format/values";
import { shareChange } from "./colour";
import type { Size } from "./paint";
import { counterpart, isDiff, type Tree } from "./tree";

/** How far it stays from the pointer in CSS pixels. */
const DISTANCE = 14;
/** How long a pointer rests on a frame, in milliseconds, until what is not there yet is asked for: not while it passes. */
const REST_MILLIS = 250;

/** The same stacks by another sample type: `undefined` while they are on their way, null where they could not be had. */
export interface OtherTree {
  sampleType: SampleType;
  tree: Tree | null | undefined;
}

export interface TooltipProps {
  tree: Tree;
  node: number;
  x: number;
  y: number;
  /** The size of the graph, whose edges it keeps within. */
  width: RefObject<Size>;
  /** Whether a screen reader should say it: when the keyboard moved. */
  isLive: boolean;
  others: readonly OtherTree[];
  /** Asks for the other sample types. */
  onRest?: (() => void) | undefined;
}

export function Tooltip({ tree, node, x, y, width, isLive, others, onRest }: TooltipProps) {
  const element = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const tip = element.current;
    if (tip === null) return;
    const room = width.current.width - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(x + DISTANCE, room))}px`;
    tip.style.top = `${y + DISTANCE}px`;
  });
  useEffect(() => {
    if (onRest === undefined) return;
    const timer = setTimeout(onRest, REST_MILLIS);
    return () => clearTimeout(timer);
  }, [node, onRest]);
  const name = tree.names[tree.name[node]];
  const origin = tree.origins.get(name);
  const place = origin === undefined ? "" : placeOf(origin);
  return (
    <div className="tooltip" ref={element} role={isLive ? "status" : "presentation"}>
      <strong>{name}</strong>
      {node === 0 ? null : (
        <div className="tooltip-place">
          {place === "" ? (origin?.mapping ?? "") : place} <span className="tooltip-kind">{KIND_NAMES[kindOf(name, origin)]}</span>
        </div>
      )}
      {isDiff(tree) ? <Difference tree={tree} node={node} /> : <Values tree={tree} node={node} />}
      {others.length === 0 ? null : (
        <dl className="tooltip-others">
          {others.map(({ sampleType, tree: other }) => (
            <Other key={sampleType.type} sampleType={sampleType} other={other} tree={tree} node={node} />
          ))}
        </dl>
      )}
    </div>
  );
}

function Values({ tree, node }: { tree: Tree; node: number }) {
  const unit = tree.sampleType.unit;
  const whole = tree.total[0];
  const parent = tree.total[tree.parent[node]];
  return (
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

/** A frame by another sample type, in a line. */
function Other({ sampleType, other, tree, node }: { sampleType: SampleType; other: Tree | null | undefined; tree: Tree; node: number }) {
  return (
    <>
      <dt>{sampleType.type}</dt>
      <dd>{other === undefined ? "…" : other === null ? "could not be loaded" : saidOf(other, counterpart(other, tree, node), sampleType.unit)}</dd>
    </>
  );
}

function saidOf(other: Tree, node: number | undefined, unit: string): string {
  // A stack without a value has no frame; one that is too small to be sent has none either.
  if (node === undefined) return other.truncated > 0 ? "none, or too small to be shown" : "none";
  const [total, self] = [other.total[node], other.self[node]];
  if (isDiff(other)) {
    const before = other.baseTotal[node];
    return `${value(before, unit)} → ${value(total, unit)} (${ratio(total, before)})`;
  }
  return `${value(total, unit)} · ${percent(total / other.total[0])}, self ${value(self, unit)}`;
}
