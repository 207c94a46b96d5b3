// A pprof file dropped on the page: read and drawn in the browser alone. It is in no link, since it is nowhere but here; the reader
// may store it.

import { useEffect, useMemo, useState, useSyncExternalStore } from "react";

import { Refusal, store } from "../api/client";
import { flameGraphOf, indexOf, profileOf, type Profile } from "../format/pprof";
import { moment } from "../format/times";
import { count } from "../format/values";
import { Refused } from "./answer";
import { ExportMenu } from "./export_menu";
import { GraphPanel } from "./graph_panel";
import { changed, go, Link } from "./place";

/** The file that is shown. */
interface Dropped {
  file: File;
  profile?: Profile;
  error?: Error;
}

let dropped: Dropped | undefined;
const CHANGED = "afterglow:file";

/** Opens a file: reads it and goes to its page. */
export async function openFile(file: File): Promise<void> {
  dropped = { file };
  try {
    dropped = { file, profile: await profileOf(file) };
  } catch (error) {
    dropped = { file, error: error instanceof Error ? error : new Error(String(error)) };
  }
  dispatchEvent(new Event(CHANGED));
  go("/file", new URLSearchParams());
}

/** Takes files that are dropped anywhere. Shows where they would land. */
export function DropZone() {
  const [isOver, setOver] = useState(false);
  useEffect(() => {
    const hasFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
    const onOver = (event: DragEvent): void => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const onLeave = (event: DragEvent): void => {
      if (event.relatedTarget === null) setOver(false);
    };
    const onDrop = (event: DragEvent): void => {
      setOver(false);
      const file = event.dataTransfer?.files.item(0);
      if (!file) return;
      event.preventDefault();
      void openFile(file);
    };
    addEventListener("dragover", onOver);
    addEventListener("dragleave", onLeave);
    addEventListener("drop", onDrop);
    return () => {
      removeEventListener("dragover", onOver);
      removeEventListener("dragleave", onLeave);
      removeEventListener("drop", onDrop);
    };
  }, []);
  return isOver ? <div className="drop">Drop a pprof file to look at it</div> : null;
}

/** A button that opens a file, for those who do not drag. */
export function OpenFile() {
  return (
    <label className="button">
      Open a file
      <input
        type="file"
        className="unseen"
        onChange={(event) => {
          const file = event.target.files?.item(0);
          if (file) void openFile(file);
          event.target.value = "";
        }}
      />
    </label>
  );
}

export function FilePage() {
  const shown = useSyncExternalStore(
    (changed) => {
      addEventListener(CHANGED, changed);
      return () => removeEventListener(CHANGED, changed);
    },
    () => dropped,
  );
  return (
    <main>
      <h1>{shown === undefined ? "A file" : shown.file.name}</h1>
      {shown === undefined ? (
        <p className="state">
          Drop a pprof file anywhere on the page, or <OpenFile />. It is read by your browser and sent nowhere; a link cannot hold it.
        </p>
      ) : shown.error !== undefined ? (
        <Refused error={shown.error} />
      ) : shown.profile === undefined ? null : (
        <Shown key={shown.file.name} file={shown.file} profile={shown.profile} />
      )}
    </main>
  );
}

function Shown({ file, profile }: { file: File; profile: Profile }) {
  const [index, setIndex] = useState(profile.sampleTypeDefault);
  const read = useMemo(() => {
    try {
      return { tree: flameGraphOf(profile, index) };
    } catch (error) {
      return { error: error instanceof Error ? error : new Error(String(error)) };
    }
  }, [profile, index]);
  return (
    <>
      <div className="file-head">
        <span>
          {profile.time > 0 ? `${moment(profile.time)}, ` : ""}
          {count(profile.samples.length, "sample")}. Only in this browser, until you store it.
        </span>
        <label className="field inline">
          <span>Values</span>
          <select value={index} onChange={(event) => setIndex(Number(event.target.value))}>
            {profile.sampleTypes.map(({ type }, i) => (
              <option key={type} value={i}>
                {type}
              </option>
            ))}
          </select>
        </label>
        <StoreForm file={file} />
      </div>
      {read.error !== undefined ? (
        <Refused error={read.error} />
      ) : (
        <GraphPanel
          tree={read.tree}
          label={file.name}
          others={{ key: `${file.name} ${file.size} ${file.lastModified}`, types: profile.sampleTypes, load: ({ type }) => flameGraphOf(profile, indexOf(profile, type)) }}
          tools={(shown, picture) => <ExportMenu tree={shown} name={file.name} picture={picture} />}
        />
      )}
    </>
  );
}

function StoreForm({ file }: { file: File }) {
  const [service, setService] = useState("");
  const [type, setType] = useState("");
  const [outcome, setOutcome] = useState<{ id: string } | { error: Error }>();
  const send = async (): Promise<void> => {
    try {
      setOutcome({ id: await store(file, service, type) });
    } catch (error) {
      const isQuerier = error instanceof Refusal && (error.status === 404 || error.status === 405);
      const words = "this server only answers questions; send the file to the ingester: afterglow push";
      setOutcome({ error: isQuerier ? new Error(words) : error instanceof Error ? error : new Error(String(error)) });
    }
  };
  if (outcome !== undefined && "id" in outcome) {
    return (
      <span role="status">
        Stored:{" "}
        <Link to="/profile" params={changed(new URLSearchParams(), { ids: outcome.id, type })}>
          {outcome.id}
        </Link>
      </span>
    );
  }
  return (
    <form
      className="store"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <label className="field inline">
        <span>Service</span>
        <input type="text" value={service} required onChange={(event) => setService(event.target.value)} />
      </label>
      <label className="field inline">
        <span>Type</span>
        <input type="text" value={type} placeholder="from the file" onChange={(event) => setType(event.target.value)} />
      </label>
      <button type="submit">Store it</button>
      {outcome === undefined ? null : (
        <span className="problem" role="alert">
          {outcome.error.message}
        </span>
      )}
    </form>
  );
}
