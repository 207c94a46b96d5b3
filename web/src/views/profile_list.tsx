// The single profiles of a selection, newest first, page by page: each opens, downloads, or joins a hand-picked merge.

import { useState } from "react";

import { number, type ProfileInfo, type SearchAnswer } from "../api/answers";
import { ask } from "../api/client";
import { parametersOf, type Selection } from "../api/selection";
import { ago, moment, seconds } from "../format/times";
import { count, value } from "../format/values";
import { Refused, States, useAnswer } from "./answer";
import { change, changed, Link, paramsOf, usePlace } from "./place";

/** How many profiles a page has. */
const PAGE = 100;

export function ProfileList({ selection, refresh }: { selection: Selection; refresh: number }) {
  const parameters = { ...parametersOf(selection), limit: PAGE };
  const first = useAnswer<SearchAnswer>("/api/v1/profiles", parameters, refresh);
  return (
    <States asked={first} what="the profiles">
      {(answer) => <Pages key={JSON.stringify(parameters) + String(refresh)} first={answer} selection={selection} />}
    </States>
  );
}

function Pages({ first, selection }: { first: SearchAnswer; selection: Selection }) {
  const [more, setMore] = useState<SearchAnswer[]>([]);
  const [error, setError] = useState<Error>();
  const { params } = usePlace();
  const picked = (params.get("picked") ?? "").split(",").filter((id) => id !== "");
  const profiles = [first, ...more].flatMap((page) => page.profiles);
  const cursor = (more.at(-1) ?? first).nextCursor;
  const load = async (): Promise<void> => {
    try {
      const page = await ask<SearchAnswer>("/api/v1/profiles", { ...parametersOf(selection), limit: PAGE, cursor });
      setMore([...more, page]);
      setError(undefined);
    } catch (caught) {
      setError(caught instanceof Error ? caught : new Error(String(caught)));
    }
  };
  const pick = (id: string): void =>
    change({ picked: (picked.includes(id) ? picked.filter((one) => one !== id) : [...picked, id]).join(",") }, true);
  if (profiles.length === 0) return <p className="state">No profiles in this time range. A longer one may have some.</p>;
  return (
    <>
      <div className="picked" role="status">
        {picked.length === 0 ? (
          <span className="hint">Pick profiles to merge just those.</span>
        ) : (
          <>
            {count(picked.length, "profile")} picked{" "}
            <Link to="/profile" className="button primary" params={changed(paramsOf({ ...selection, ids: picked }), { query: undefined })}>
              Merge them
            </Link>{" "}
            <button type="button" onClick={() => change({ picked: undefined }, true)}>
              Pick none
            </button>
          </>
        )}
      </div>
      <div className="scroll-x" tabIndex={0} role="region" aria-label="Profiles">
        <table className="list">
          <thead>
            <tr>
              <th scope="col">
                <span className="unseen">Picked</span>
              </th>
              <th scope="col">Time</th>
              <th scope="col">Service</th>
              <th scope="col">Labels</th>
              <th scope="col" className="number">
                Lasted
              </th>
              <th scope="col" className="number">
                Total
              </th>
              <th scope="col" className="number">
                Samples
              </th>
              <th scope="col">
                <span className="unseen">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {profiles.map((profile) => (
              <Row key={profile.id} profile={profile} selection={selection} isPicked={picked.includes(profile.id)} onPick={pick} />
            ))}
          </tbody>
        </table>
      </div>
      {error === undefined ? null : <Refused error={error} />}
      {cursor === "" ? (
        <p className="hint">{count(profiles.length, "profile")}, all of them.</p>
      ) : (
        <button type="button" onClick={() => void load()}>
          Load {PAGE} more
        </button>
      )}
    </>
  );
}

interface RowProps {
  profile: ProfileInfo;
  selection: Selection;
  isPicked: boolean;
  onPick: (id: string) => void;
}

function Row({ profile, selection, isPicked, onPick }: RowProps) {
  const time = Date.parse(profile.time);
  const shown = profile.totals.find(({ type }) => type === selection.sampleType) ?? profile.totals.at(-1);
  const labels = Object.entries(profile.labels).filter(([name]) => name !== "service");
  return (
    <tr>
      <td>
        <input type="checkbox" checked={isPicked} aria-label={`Pick ${profile.id}`} onChange={() => onPick(profile.id)} />
      </td>
      <td title={profile.time}>
        <Link to="/profile" params={changed(paramsOf({ ...selection, ids: [profile.id] }), { query: undefined })}>
          {moment(time)}
        </Link>{" "}
        <span className="hint">{ago(time)}</span>
      </td>
      <td>{profile.service}</td>
      <td>
        {labels.map(([name, value]) => (
          <span className="label" key={name}>
            {name}={value}
          </span>
        ))}
      </td>
      <td className="number">{seconds(profile.duration) > 0 ? value(seconds(profile.duration), "seconds") : "–"}</td>
      <td className="number">{shown === undefined ? "–" : value(number(shown.value), shown.unit)}</td>
      <td className="number">{number(profile.samples).toLocaleString("en-US")}</td>
      <td>
        <a href={`/api/v1/profiles/${encodeURIComponent(profile.id)}`} download>
          pprof
        </a>
      </td>
    </tr>
  );
}
