// What is shown where nothing is stored yet, or nothing in this window: how to send a first profile, with this server's address.

import type { Selection } from "../api/selection";
import { copy } from "./copy";
import { change } from "./place";

export function EmptyStore({ selection }: { selection: Selection }) {
  const lines = [
    "go test sort -run '^$' -bench SortString1K -cpuprofile cpu.pb.gz -o /dev/null",
    `curl --data-binary @cpu.pb.gz '${location.origin}/api/v1/profiles?service=my-app&type=cpu'`,
  ].join("\n");
  return (
    <section className="state empty">
      <h2>Nothing here yet</h2>
      <p>
        No profiles match {selection.query === "" ? "" : <code>{selection.query}</code>} in this time range.{" "}
        {selection.start === "-30d" ? null : (
          <button type="button" onClick={() => change({ start: "-30d", end: "" })}>
            Look at the last 30 days
          </button>
        )}
      </p>
      <p>Two lines send a first profile (with the tiers apart, to the ingester&apos;s address):</p>
      <pre>{lines}</pre>
      <button type="button" onClick={() => void copy(`${lines}\n`, "the lines")}>
        Copy
      </button>
      <p>Or drop a pprof file anywhere on this page: it is shown at once, and not stored.</p>
    </section>
  );
}
