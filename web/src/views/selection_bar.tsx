// What a page is about, on top of it: selector, profile type, sample type, time range.

import type { TypesAnswer } from "../api/answers";
import { START_DEFAULT, type Selection } from "../api/selection";
import { Loading, Refused, useAnswer, type Asked } from "./answer";
import { change } from "./place";
import { RangeInput } from "./range_input";
import { SelectorInput } from "./selector_input";

/** The profile types of a selection, whatever type is selected. */
export function useTypes(selection: Selection, refresh = 0): Asked<TypesAnswer> {
  const { query, start, end } = selection;
  return useAnswer<TypesAnswer>("/api/v1/types", { query, start: start === "" ? START_DEFAULT : start, end }, refresh);
}

/** Returns the type to show: the selected one, else `cpu` where there is it, else the first. */
export function typeOf(selection: Selection, types: TypesAnswer | undefined): string {
  if (selection.type !== "") return selection.type;
  const names = types?.types.map(({ type }) => type) ?? [];
  return names.includes("cpu") ? "cpu" : (names[0] ?? "");
}

/** Says why nothing can be shown yet: the types are not known, or the selection is wrong, or nothing matches it. */
export function NoType({ types }: { types: Asked<TypesAnswer> }) {
  if (types.error !== undefined) return <Refused error={types.error} again={types.again} />;
  if (types.data === undefined) return <Loading what="the profile types" bytes={types.bytes} />;
  return <p className="state">No profiles match the selection in this time range.</p>;
}

export interface SelectionBarProps {
  selection: Selection;
  types: TypesAnswer | undefined;
  onRefresh?: () => void;
}

export function SelectionBar({ selection, types, onRefresh }: SelectionBarProps) {
  const type = typeOf(selection, types);
  return (
    <div className="bar" role="search">
      <SelectorInput
        label="Selector"
        value={selection.query}
        start={selection.start}
        end={selection.end}
        onChange={(query) => change({ query, ids: undefined, zoom: undefined })}
      />
      <TypeInputs type={type} sampleType={selection.sampleType} types={types} />
      <RangeInput
        start={selection.start}
        end={selection.end}
        onChange={(start, end) => change({ start, end, ids: undefined })}
        {...(onRefresh === undefined ? {} : { onRefresh })}
      />
    </div>
  );
}

export interface TypeInputsProps {
  type: string;
  sampleType: string;
  types: TypesAnswer | undefined;
}

export function TypeInputs({ type, sampleType, types }: TypeInputsProps) {
  const names = types?.types.map(({ type }) => type) ?? [];
  const sampleTypes = types?.types.find((one) => one.type === type)?.sampleTypes ?? [];
  return (
    <>
      <label className="field">
        <span>Type</span>
        <select value={type} onChange={(event) => change({ type: event.target.value, sample_type: undefined, zoom: undefined })}>
          {names.includes(type) ? null : <option value={type}>{type === "" ? "none" : type}</option>}
          {names.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </label>
      {sampleTypes.length < 2 ? null : (
        <label className="field">
          <span>Values</span>
          <select value={sampleType} onChange={(event) => change({ sample_type: event.target.value })}>
            <option value="">default</option>
            {sampleTypes.map(({ type }) => (
              <option key={type}>{type}</option>
            ))}
          </select>
        </label>
      )}
    </>
  );
}
