// The keys, on a sheet that `?` shows.

import { useEffect, useRef } from "react";

const KEYS: [string, string][] = [
  ["?", "this sheet"],
  ["g o · g e · g c · g s", "go to overview, explore, compare, statistics"],
  ["q", "write the selector"],
  ["/", "search functions"],
  ["r", "ask again"],
  ["t", "dark or light"],
  ["← ↑ → ↓", "in a graph: from frame to frame; in a table: from row to row"],
  ["Enter", "zoom to the frame; highlight the row's function; in the search: focus on it"],
  ["Backspace · Esc", "zoom out by one; all the way"],
  ["+ −, Ctrl wheel", "zoom smoothly; drag or Shift wheel moves"],
  ["s", "callers and callees"],
  ["f · h", "focus on the function; hide it"],
  ["o", "open its source, where you have said where that is"],
  ["c · m", "copy its name; all that can be done with it"],
];

export function HelpSheet({ isOpen, onClose }: { isOpen: boolean; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (isOpen) dialog.current?.showModal();
    else dialog.current?.close();
  }, [isOpen]);
  return (
    <dialog ref={dialog} onClose={onClose} aria-label="Keys">
      <h2>Keys</h2>
      <dl className="keys">
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <form method="dialog">
        <button type="submit" className="primary">
          Close
        </button>
      </form>
    </dialog>
  );
}
