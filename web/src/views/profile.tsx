// One profile, or a few that were picked by hand. A single one is fetched as it was sent and read in the browser, with all of its
// sample types; several are merged by the server.

import { useMemo } from "react";

import type { Answer, SearchAnswer } from "../api/answers";
import { download } from "../api/client";
import { selectionOf } from "../api/selection";
import { flameGraphOf, indexOf, profileOf, type Profile } from "../format/pprof";
import { moment, rfc3339 } from "../format/times";
import { count } from "../format/values";
import { States, useAnswer, useFetched } from "./answer";
import { ExportMenu, mergeSource } from "./export_menu";
import { GraphPanel } from "./graph_panel";
import { MergedGraph, titleOf } from "./merged_graph";
import { change, changed, Link, paramsOf, usePlace } from "./place";
import { sourceOf } from "./source";

/** Among how many profiles of its moment one is looked for. */
const MOMENT_MAX = 1_000;

export function ProfilePage() {
  const { params } = usePlace();
  const selection = selectionOf(params);
  const back = changed(paramsOf({ ...selection, ids: [] }), { tab: "profiles", picked: selection.ids.length > 1 ? selection.ids.join(",") : "" });
  return (
    <main>
      <h1>{selection.ids.length === 1 ? `Profile ${selection.ids[0]}` : count(selection.ids.length, "picked profile")}</h1>
      <p>
        <Link to="/explore" params={back}>
          ‹ All profiles
        </Link>
      </p>
      {selection.ids.length === 0 ? (
        <p className="state">This link names no profile.</p>
      ) : selection.ids.length === 1 ? (
        <Single id={selection.ids[0]} />
      ) : (
        <MergedGraph selection={selection} refresh={0} />
      )}
    </main>
  );
}

/** Says whose profile it is: a pprof does not know, the server does, which lists what is of its moment. */
function Whose({ id, time }: { id: string; time: number }) {
  const window = { start: rfc3339(time - 1_000), end: rfc3339(time + 2_000), limit: MOMENT_MAX };
  const found = useAnswer<SearchAnswer>(time > 0 ? "/api/v1/profiles" : undefined, window).data?.profiles.find((one) => one.id === id);
  if (found === undefined) return null;
  return (
    <p aria-label="Whose profile" role="group">
      {found.service} · {found.type}{" "}
      {Object.entries(found.labels)
        .filter(([name]) => name !== "service")
        .map(([name, value]) => (
          <span className="label" key={name}>
            {name}={value}
          </span>
        ))}
    </p>
  );
}

function Single({ id }: { id: string }) {
  const { params } = usePlace();
  const selection = selectionOf(params);
  const asked = useFetched<Answer & { profile: Profile }>(`/api/v1/profiles/${id}`, async (listening) => ({
    profile: await profileOf(await download(`/api/v1/profiles/${encodeURIComponent(id)}`, {}, listening)),
  }));
  const profile = asked.data?.profile;
  const index = profile === undefined ? 0 : indexOf(profile, selection.sampleType);
  const tree = useMemo(() => (profile === undefined ? undefined : flameGraphOf(profile, index)), [profile, index]);
  return (
    <States asked={asked} what="the profile">
      {({ profile }) => (
        <>
          <Whose id={id} time={profile.time} />
          <p>
            {profile.time > 0 ? `${moment(profile.time)}, ` : ""}
            {count(profile.samples.length, "sample")}{" "}
            <label className="field inline">
              <span>Values</span>
              <select value={profile.sampleTypes[index].type} onChange={(event) => change({ sample_type: event.target.value })}>
                {profile.sampleTypes.map(({ type }) => (
                  <option key={type}>{type}</option>
                ))}
              </select>
            </label>
          </p>
          {tree === undefined ? null : (
            <GraphPanel
              tree={tree}
              label={`profile ${id}`}
              source={sourceOf(selection)}
              others={{ key: id, types: profile.sampleTypes, load: ({ type }) => flameGraphOf(profile, indexOf(profile, type)) }}
              tools={(shown, picture) => <ExportMenu tree={shown} name={titleOf(selection)} picture={picture} source={mergeSource(selection)} />}
            />
          )}
        </>
      )}
    </States>
  );
}
