// Rows of which only those in view are on the page: a table of a million functions costs as much as one of forty.

import { useLayoutEffect, useRef, useState, type KeyboardEvent, type ReactNode } from "react";

/** The height of a row in CSS pixels; style.css has the same. */
export const ROW_HEIGHT = 26;
/** How many rows are kept ready above and below. */
const SPARE = 8;

export interface VirtualRowsProps {
  count: number;
  label: string;
  role: "table" | "treegrid";
  head: ReactNode;
  row: (index: number) => ReactNode;
  /** The row that the keyboard is on. */
  current: number;
  onCurrent: (index: number) => void;
  /** Other keys than those that move. */
  onKey?: (event: KeyboardEvent, index: number) => void;
}

export function VirtualRows({ count, label, role, head, row, current, onCurrent, onKey }: VirtualRowsProps) {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    const look = (): void => setView({ top: element.scrollTop, height: element.clientHeight });
    const observer = new ResizeObserver(look);
    observer.observe(element);
    element.addEventListener("scroll", look, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", look);
    };
  }, []);
  const first = Math.max(0, Math.floor(view.top / ROW_HEIGHT) - SPARE);
  const last = Math.min(count, Math.ceil((view.top + view.height) / ROW_HEIGHT) + SPARE);
  const moveTo = (index: number): void => {
    const next = Math.min(count - 1, Math.max(0, index));
    onCurrent(next);
    const element = box.current;
    if (element === null) return;
    const [top, bottom] = [next * ROW_HEIGHT, (next + 1) * ROW_HEIGHT];
    if (top < element.scrollTop) element.scrollTop = top;
    // The head covers the first row's height.
    else if (bottom > element.scrollTop + element.clientHeight - ROW_HEIGHT) {
      element.scrollTop = bottom - element.clientHeight + ROW_HEIGHT;
    }
  };
  const page = Math.max(1, Math.floor(view.height / ROW_HEIGHT) - 2);
  const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -count, End: count };
  return (
    <div
      className="rows"
      ref={box}
      tabIndex={0}
      role={role}
      aria-label={label}
      aria-rowcount={count + 1}
      onKeyDown={(event) => {
        const step = event.target === event.currentTarget ? steps[event.key] : undefined;
        if (step !== undefined) {
          event.preventDefault();
          moveTo(current + step);
        } else onKey?.(event, current);
      }}
    >
      {head}
      <div className="rows-content" role="rowgroup" style={{ height: count * ROW_HEIGHT }}>
        <div role="presentation" style={{ transform: `translateY(${first * ROW_HEIGHT}px)` }}>
          {Array.from({ length: Math.max(0, last - first) }, (_, i) => row(first + i))}
        </div>
      </div>
    </div>
  );
}
