// Rows over time, darker where there is more: one canvas, a cell for each row and step. A cell leads to its profiles.

import { useEffect, useRef, useState } from "react";

import { moment } from "../format/times";
import type { ChartLine } from "./chart";
import type { Theme } from "./theme";

/** The height of a row in CSS pixels. */
const ROW = 18;
/** The room for names. */
const NAMES = 200;

export interface HeatMapProps {
  lines: ChartLine[];
  /** Unix seconds, ascending. */
  times: number[];
  format: (value: number) => string;
  theme: Theme;
  onCell: (row: number, column: number) => void;
}

export function HeatMap({ lines, times, format, theme, onCell }: HeatMapProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [cell, setCell] = useState<{ row: number; column: number }>();
  const height = lines.length * ROW;
  useEffect(() => {
    const element = canvas.current;
    const context = element?.getContext("2d");
    if (!element || !context) return;
    const draw = (): void => {
      const width = element.clientWidth;
      element.width = width * devicePixelRatio;
      element.height = height * devicePixelRatio;
      context.scale(devicePixelRatio, devicePixelRatio);
      context.font = '12px "DejaVu Sans", system-ui, sans-serif';
      context.textBaseline = "middle";
      const top = Math.max(...lines.flatMap(({ values }) => values.map((value) => value ?? 0)), Number.MIN_VALUE);
      const cellWidth = (width - NAMES) / times.length;
      lines.forEach(({ name, values }, row) => {
        context.fillStyle = theme === "dark" ? "#eceae6" : "#1b1d22";
        context.fillText(name, 0, row * ROW + ROW / 2, NAMES - 8);
        values.forEach((value, column) => {
          if (value === null) return;
          // From the background's end to the accent's: lightness alone tells how much.
          const share = value / top;
          context.fillStyle = theme === "dark" ? `hsl(28 80% ${12 + 55 * share}%)` : `hsl(18 75% ${94 - 58 * share}%)`;
          context.fillRect(NAMES + column * cellWidth, row * ROW + 1, Math.max(1, cellWidth - 0.5), ROW - 2);
        });
      });
    };
    draw();
    const observer = new ResizeObserver(draw);
    observer.observe(element);
    return () => observer.disconnect();
  }, [lines, times, theme, height]);
  const value = cell === undefined ? null : lines[cell.row].values[cell.column];
  const move = (row: number, column: number): void =>
    setCell({ row: Math.min(lines.length - 1, Math.max(0, row)), column: Math.min(times.length - 1, Math.max(0, column)) });
  return (
    <div
      className="heat"
      role="application"
      aria-label="Heat map"
      tabIndex={0}
      onKeyDown={(event) => {
        const at = cell ?? { row: 0, column: 0 };
        const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
        if (step !== undefined) {
          event.preventDefault();
          move(at.row + step[0], at.column + step[1]);
        } else if (event.key === "Enter") onCell(at.row, at.column);
      }}
    >
      <canvas
        ref={canvas}
        style={{ height }}
        onPointerMove={(event) => {
          const bounds = event.currentTarget.getBoundingClientRect();
          const column = Math.floor(((event.clientX - bounds.left - NAMES) / (bounds.width - NAMES)) * times.length);
          const row = Math.floor((event.clientY - bounds.top) / ROW);
          if (row >= 0 && row < lines.length && column >= 0 && column < times.length) setCell({ row, column });
          else setCell(undefined);
        }}
        onPointerLeave={() => setCell(undefined)}
        onClick={() => {
          if (cell !== undefined && value !== null) onCell(cell.row, cell.column);
        }}
      />
      <p className="hint" role="status">
        {cell === undefined
          ? `${theme === "dark" ? "Lighter" : "Darker"} is more. A cell leads to its profiles.`
          : `${lines[cell.row].name}, ${moment(1e3 * times[cell.column])}: ${value === null ? "no profile" : format(value)}`}
      </p>
    </div>
  );
}
