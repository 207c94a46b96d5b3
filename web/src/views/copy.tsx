// Copies texts, and says so.

import { useEffect, useState } from "react";

const SAID = "afterglow:said";
/** How long a message stays, in milliseconds. */
const SHOWN_MILLIS = 2_500;

/** Shows a short message at the edge of the page. */
export function say(message: string): void {
  dispatchEvent(new CustomEvent(SAID, { detail: message }));
}

/** Copies a text to the clipboard; where the browser forbids that (plain http from afar), by way of a selected field. */
export async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "unseen";
    document.body.append(field);
    field.select();
    // The only way left without a secure origin.
    // eslint-disable-next-line @typescript-eslint/no-deprecated
    const copied = document.execCommand("copy");
    field.remove();
    if (!copied) {
      say("The browser does not let this page copy.");
      return;
    }
  }
  say(`Copied ${what}`);
}

/** Offers a file to save. */
export function save(name: string, file: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  // The browser has taken hold of it by the next turn.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Where messages appear. */
export function Sayings() {
  const [message, setMessage] = useState<string>();
  useEffect(() => {
    let timer = 0;
    const onSaid = (event: globalThis.Event): void => {
      setMessage((event as CustomEvent<string>).detail);
      clearTimeout(timer);
      timer = window.setTimeout(() => setMessage(undefined), SHOWN_MILLIS);
    };
    addEventListener(SAID, onSaid);
    return () => {
      removeEventListener(SAID, onSaid);
      clearTimeout(timer);
    };
  }, []);
  return (
    <div className="sayings" role="status" aria-live="polite">
      {message}
    </div>
  );
}
