// What can be done with a frame, as a menu where it was asked for.

import { useEffect, useLayoutEffect, useRef } from "react";

import type { FrameAction } from "../flamegraph/canvas";

const ITEMS: { action: FrameAction; name: string; key: string }[] = [
  { action: "zoom", name: "Zoom", key: "Enter" },
  { action: "sandwich", name: "Callers and callees", key: "s" },
  { action: "focus", name: "Focus: only stacks with it", key: "f" },
  { action: "hide", name: "Hide: take it out of all stacks", key: "h" },
  { action: "search", name: "Highlight all of it", key: "" },
  { action: "collapse", name: "Collapse recursion", key: "" },
  { action: "copy", name: "Copy the name", key: "c" },
];

export interface FrameMenuProps {
  name: string;
  x: number;
  y: number;
  onAction: (action: FrameAction) => void;
  onFunction?: ((name: string) => void) | undefined;
  /** Where its source can be read, where that is known. */
  source?: string | undefined;
  onClose: () => void;
}

export function FrameMenu({ name, x, y, onAction, onFunction, source, onClose }: FrameMenuProps) {
  const menu = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const element = menu.current;
    if (element === null) return;
    element.style.left = `${Math.max(0, Math.min(x, innerWidth - element.offsetWidth - 8))}px`;
    element.style.top = `${Math.max(0, Math.min(y, innerHeight - element.offsetHeight - 8))}px`;
    element.querySelector("button")?.focus();
  }, [x, y]);
  useEffect(() => {
    const onPointerDown = (event: PointerEvent): void => {
      if (event.target instanceof Node && menu.current?.contains(event.target) !== true) onClose();
    };
    addEventListener("pointerdown", onPointerDown);
    return () => removeEventListener("pointerdown", onPointerDown);
  }, [onClose]);
  return (
    <div
      className="menu"
      ref={menu}
      role="menu"
      aria-label={name}
      tabIndex={-1}
      onKeyDown={(event) => {
        const buttons = [...(menu.current?.querySelectorAll("button") ?? [])];
        const at = buttons.findIndex((button) => button === document.activeElement);
        const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (event.key === "Escape") {
          event.stopPropagation();
          onClose();
        } else if (step !== undefined) {
          event.preventDefault();
          buttons[(at + step + buttons.length) % buttons.length].focus();
        }
      }}
    >
      <div className="menu-title">{name}</div>
      {ITEMS.map(({ action, name, key }) => (
        <button
          key={action}
          type="button"
          role="menuitem"
          onClick={() => {
            onAction(action);
            onClose();
          }}
        >
          {name} <kbd>{key}</kbd>
        </button>
      ))}
      {source === undefined ? null : (
        <button
          type="button"
          role="menuitem"
          onClick={() => {
            onAction("source");
            onClose();
          }}
        >
          Source at {new URL(source).host} <kbd>o</kbd>
        </button>
      )}
      {onFunction === undefined ? null : (
        <button type="button" role="menuitem" onClick={() => onFunction(name)}>
          History, versions, instances <kbd />
        </button>
      )}
    </div>
  );
}
