// The functions of a tree by self and total; of a comparison by how much they changed. A row highlights its function in the graph; the
// button at its end shows callers and callees.

import { useMemo, useState } from "react";

import { testerOf, type FunctionRow } from "../flamegraph/transform";
import { isDiff, type Tree } from "../flamegraph/tree";
import { percent, ratio, value } from "../format/values";
import { shortName } from "../format/names";
import { placeOf, shortPlaceOf } from "../format/source";
import { SourceLink, type Sourced } from "./source";
import { VirtualRows } from "./virtual_rows";

/** A column: how it sorts and what it shows. */
interface Column {
  id: string;
  name: string;
  title: string;
  by: (row: FunctionRow) => number | string;
  show: (row: FunctionRow) => string;
}

function columnsOf(tree: Tree): Column[] {
  const unit = tree.sampleType.unit;
  const [whole, baseWhole] = [tree.total[0], tree.baseTotal.at(0) ?? 0];
  const share = (row: FunctionRow): number => row.self / whole - row.baseSelf / baseWhole;
  const shareTotal = (row: FunctionRow): number => row.total / whole - row.baseTotal / baseWhole;
  const points = (difference: number): string => (difference > 0 ? `+${percent(difference)}` : percent(difference));
  if (isDiff(tree)) {
    return [
      column("after", "After", "Total of the selection", (row) => row.total, (row) => value(row.total, unit)),
      column("change", "Change", "Total after, against before", (row) => row.total - row.baseTotal, (row) => ratio(row.total, row.baseTotal)),
      column("self", "Self ±", "How the share of self changed", (row) => share(row), (row) => points(share(row))),
      column("total", "Total ±", "How the share of total changed", (row) => shareTotal(row), (row) => points(shareTotal(row))),
    ];
  }
  return [
    column("self", "Self", "In the function itself", (row) => row.self, (row) => value(row.self, unit)),
    column("selfshare", "%", "Self, of all", (row) => row.self, (row) => percent(row.self / whole)),
    column("total", "Total", "With all it calls", (row) => row.total, (row) => value(row.total, unit)),
    column("totalshare", "%", "Total, of all", (row) => row.total, (row) => percent(row.total / whole)),
  ];
}

/** The place of a function of which none is known. */
const NOWHERE = { file: "", line: 0, mapping: "" };

function column(id: string, name: string, title: string, by: Column["by"], show: Column["show"]): Column {
  return { id, name, title, by, show };
}

export interface TopTableProps {
  functions: FunctionRow[];
  /** The tree that they are of. */
  shown: Tree;
  search: string;
  selected: string;
  /** Where a function's source can be read. */
  urlOf: Sourced;
  onSearch: (name: string) => void;
  onSandwich: (name: string) => void;
  onFunction?: ((name: string) => void) | undefined;
}

export function TopTable({ functions, shown, search, selected, urlOf, onSearch, onSandwich, onFunction }: TopTableProps) {
  const columns = useMemo(() => columnsOf(shown), [shown]);
  const [sort, setSort] = useState({ id: isDiff(shown) ? "total" : "self", isDown: true });
  const [current, setCurrent] = useState(0);
  const rows = useMemo(() => {
    const test = search === "" ? () => true : testerOf(search);
    const byText = (row: FunctionRow): string => (sort.id === "source" ? placeOf(shown.origins.get(row.name) ?? NOWHERE) : row.name);
    const by = columns.find(({ id }) => id === sort.id)?.by ?? byText;
    const sign = sort.isDown ? -1 : 1;
    return functions
      .filter(({ name }) => test(name))
      .map((row) => ({ row, key: by(row) }))
      .sort((a, b) => (a.key < b.key ? -sign : a.key > b.key ? sign : a.row.name < b.row.name ? -1 : 1))
      .map(({ row }) => row);
  }, [functions, shown, columns, search, sort]);
  const sortBy = (id: string): void => setSort({ id, isDown: sort.id === id ? !sort.isDown : id !== "name" && id !== "source" });
  const whole = Math.max(shown.total[0], shown.baseTotal.at(0) ?? 0);
  return (
    <div className="top">
      <VirtualRows
        role="table"
        label="Functions"
        count={rows.length}
        current={Math.min(current, rows.length - 1)}
        onCurrent={setCurrent}
        onKey={(event, index) => {
          if (event.target !== event.currentTarget || index < 0) return;
          if (event.key === "Enter") onSearch(rows[index].name);
          else if (event.key === "s" && !event.ctrlKey && !event.metaKey) onSandwich(rows[index].name);
          else if (event.key === "o" && !event.ctrlKey && !event.metaKey) {
            const url = urlOf(shown.origins.get(rows[index].name));
            if (url !== undefined) window.open(url, "_blank", "noopener,noreferrer");
          }
        }}
        head={
          <div className="row head" role="row">
            <SortHead id="name" name="Function" title="By name" sort={sort} onSort={sortBy} />
            {columns.map(({ id, name, title }) => (
              <SortHead key={id} id={id} name={name} title={title} sort={sort} onSort={sortBy} />
            ))}
            <SortHead id="source" name="Source" title="By file and line" sort={sort} onSort={sortBy} />
            <span role="columnheader" className="cell act">
              <span className="unseen">Actions</span>
            </span>
          </div>
        }
        row={(index) => {
          const row = rows[index];
          const origin = shown.origins.get(row.name);
          return (
            <div
              key={row.name}
              className="row"
              role="row"
              aria-rowindex={index + 2}
              data-current={index === current}
              data-selected={row.name === selected}
              onClick={() => {
                setCurrent(index);
                onSearch(row.name);
              }}
            >
              <span role="cell" className="cell name" title={row.name}>
                <span className="share" style={{ width: `${Math.min(100, (100 * row.self) / whole)}%` }} />
                {shortName(row.name)}
              </span>
              {columns.map(({ id, show }) => (
                <span key={id} role="cell" className={`cell ${id}`}>
                  {show(row)}
                </span>
              ))}
              <span role="cell" className="cell source">
                {origin === undefined ? null : <SourceLink origin={origin} urlOf={urlOf} text={shortPlaceOf(origin)} tabIndex={-1} />}
              </span>
              <span role="cell" className="cell act">
                <button
                  type="button"
                  tabIndex={-1}
                  title="Callers and callees (s)"
                  aria-label={`Callers and callees of ${row.name}`}
                  onClick={(event) => {
                    event.stopPropagation();
                    onSandwich(row.name);
                  }}
                >
                  ⇅
                </button>
                {onFunction === undefined ? null : (
                  <button
                    type="button"
                    tabIndex={-1}
                    title="History, versions, instances"
                    aria-label={`History of ${row.name}`}
                    onClick={(event) => {
                      event.stopPropagation();
                      onFunction(row.name);
                    }}
                  >
                    ↗
                  </button>
                )}
              </span>
            </div>
          );
        }}
      />
    </div>
  );
}

interface SortHeadProps {
  id: string;
  name: string;
  title: string;
  sort: { id: string; isDown: boolean };
  onSort: (id: string) => void;
}

function SortHead({ id, name, title, sort, onSort }: SortHeadProps) {
  const isSorted = sort.id === id;
  return (
    <span
      role="columnheader"
      className={`cell ${id}`}
      aria-sort={isSorted ? (sort.isDown ? "descending" : "ascending") : "none"}
    >
      <button type="button" title={title} onClick={() => onSort(id)}>
        {name}
        <span aria-hidden="true">{isSorted ? (sort.isDown ? " ▾" : " ▴") : ""}</span>
      </button>
    </span>
  );
}
