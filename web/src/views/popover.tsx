// A button that opens a small box: closed by Escape, by a press elsewhere, and by what is chosen in it.

import { useEffect, useRef, useState, type ReactNode } from "react";

export interface PopoverProps {
  label: ReactNode;
  title?: string;
  className?: string;
  align?: "start" | "end";
  children: (close: () => void) => ReactNode;
}

export function Popover({ label, title, className, align = "start", children }: PopoverProps) {
  const [isOpen, setOpen] = useState(false);
  const element = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (!isOpen) return;
    const onPointerDown = (event: PointerEvent): void => {
      if (event.target instanceof Node && element.current?.contains(event.target) !== true) setOpen(false);
    };
    addEventListener("pointerdown", onPointerDown);
    return () => removeEventListener("pointerdown", onPointerDown);
  }, [isOpen]);
  return (
    <div
      className="popover-anchor"
      ref={element}
      onKeyDown={(event) => {
        if (event.key !== "Escape" || !isOpen) return;
        event.stopPropagation();
        setOpen(false);
        button.current?.focus();
      }}
    >
      <button
        type="button"
        ref={button}
        className={className}
        title={title}
        aria-haspopup="dialog"
        aria-expanded={isOpen}
        onClick={() => setOpen(!isOpen)}
      >
        {label}
      </button>
      {isOpen ? (
        <div className={`popover ${align}`} role="dialog" aria-label={title}>
          {children(() => setOpen(false))}
        </div>
      ) : null}
    </div>
  );
}
