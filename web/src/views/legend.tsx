// What the colours of a graph mean, where they mean something: kinds of code with their shares, or the sides of a comparison.

import { useMemo } from "react";

import { KIND_COLOURS, kindTotals, type Colouring } from "../flamegraph/colour";
import type { Tree } from "../flamegraph/tree";
import { KINDS, KIND_NAMES } from "../format/kinds";
import { percent } from "../format/values";

export function Legend({ tree, colouring, theme }: { tree: Tree; colouring: Colouring; theme: "light" | "dark" }) {
  if (colouring === "type") return <Kinds tree={tree} theme={theme} />;
  if (colouring !== "diff") return null;
  return (
    <span className="legend">
      <span className="swatch less" /> less <span className="swatch same" /> same share <span className="swatch more" /> more
    </span>
  );
}

/** The kinds that occur, with what of all was spent in them. */
function Kinds({ tree, theme }: { tree: Tree; theme: "light" | "dark" }) {
  const totals = useMemo(() => kindTotals(tree), [tree]);
  return (
    <ul className="legend" aria-label="Kinds of code, by their own share">
      {KINDS.map((kind, i) =>
        totals[i] === 0 ? null : (
          <li key={kind}>
            <span className="swatch" style={{ background: KIND_COLOURS[theme][kind] }} /> {KIND_NAMES[kind]} {percent(totals[i] / tree.total[0])}
          </li>
        ),
      )}
    </ul>
  );
}
