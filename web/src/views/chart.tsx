// A chart of series over time (uPlot): drag to choose a window, marks where something began. Values come aligned: one list of times, and
// for each series its value or nothing.

import { useEffect, useRef } from "react";
import UPlot from "uplot";

import { moment } from "../format/times";
import type { Theme } from "./theme";

/** The height in CSS pixels. */
const HEIGHT = 190;
/** The shortest window that a drag means, in pixels. */
const BRUSH_MIN = 6;

/** Lines' colours by their place; the same in both themes, told apart by the common kinds of colour blindness (Okabe and Ito, darker). */
export const LINES = ["#0072b2", "#d55e00", "#009e73", "#a64d79", "#b8860b", "#4a90d9", "#7f7f7f", "#8b5cf6"];

export interface ChartLine {
  name: string;
  values: (number | null)[];
}

export interface ChartMark {
  /** Unix seconds. */
  time: number;
  name: string;
}

export interface ChartProps {
  /** Unix seconds, ascending. */
  times: number[];
  lines: ChartLine[];
  marks: ChartMark[];
  /** The window that was asked for, in unix seconds. */
  window: { start: number; end: number };
  theme: Theme;
  label: string;
  format: (value: number) => string;
  /** The steps that the axis of values may have; those of ten where missing. */
  steps?: number[] | undefined;
  onBrush?: (start: number, end: number) => void;
}

export function Chart({ times, lines, marks, window, theme, label, format, steps, onBrush }: ChartProps) {
  const box = useRef<HTMLDivElement>(null);
  const brushed = useRef(onBrush);
  useEffect(() => {
    brushed.current = onBrush;
  });
  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    const ink = theme === "dark" ? "#b9bec7" : "#4a4f59";
    const paper = theme === "dark" ? "#16181d" : "#ffffff";
    const grid = theme === "dark" ? "#2c3038" : "#e6e8ec";
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
    const options: UPlot.Options = {
      width: element.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      scales: { x: { time: true, range: () => [window.start, window.end] }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.15 : 1] } },
      axes: [axis, { ...axis, size: 72, values: (_, ticks) => ticks.map(format), ...(steps && { incrs: steps }) }],
      series: [
        {},
        ...lines.map((line, i) => ({
          label: line.name,
          stroke: LINES[i % LINES.length],
          width: 2,
          spanGaps: true,
          points: { show: line.values.length < 40, size: 5 },
        })),
      ],
      cursor: { drag: { x: true, y: false, setScale: false } },
      hooks: {
        draw: [(plot) => drawMarks(plot, marks, ink, paper)],
        setSelect: [
          (plot) => {
            if (plot.select.width < BRUSH_MIN) return;
            const at = (pixel: number): number => plot.posToVal(pixel, "x");
            brushed.current?.(at(plot.select.left), at(plot.select.left + plot.select.width));
            plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          },
        ],
      },
      plugins: [readout(lines, format)],
    };
    const plot = new UPlot(options, [times, ...lines.map(({ values }) => values)], element);
    const observer = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.destroy();
    };
  }, [times, lines, marks, window.start, window.end, theme, format, steps]);
  return <div className="chart" ref={box} role="img" aria-label={label} />;
}

/** The height of a mark's name in CSS pixels. */
const MARK_HEIGHT = 15;

function drawMarks(plot: UPlot, marks: ChartMark[], ink: string, paper: string): void {
  const { ctx } = plot;
  ctx.save();
  ctx.strokeStyle = ink;
  ctx.fillStyle = ink;
  ctx.font = `${11 * devicePixelRatio}px sans-serif`;
  ctx.textAlign = "left";
  ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const { time, name } of marks) {
    const x = plot.valToPos(time, "x", true);
    if (x < plot.bbox.left || x > plot.bbox.left + plot.bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, plot.bbox.top);
    ctx.lineTo(x, plot.bbox.top + plot.bbox.height);
    ctx.stroke();
    // On a plate: a line may run through the name.
    const [left, top, height] = [x + 2 * devicePixelRatio, plot.bbox.top, MARK_HEIGHT * devicePixelRatio];
    ctx.fillStyle = paper;
    ctx.fillRect(left, top, ctx.measureText(name).width + 4 * devicePixelRatio, height);
    ctx.fillStyle = ink;
    ctx.fillText(name, left + 2 * devicePixelRatio, top + height - 4 * devicePixelRatio);
  }
  ctx.restore();
}

/** Shows time and values under the pointer. */
function readout(lines: ChartLine[], format: (value: number) => string): UPlot.Plugin {
  const tip = document.createElement("div");
  tip.className = "tooltip";
  tip.hidden = true;
  return {
    hooks: {
      init: (plot) => {
        plot.over.append(tip);
      },
      setCursor: (plot) => {
        const { idx, left } = plot.cursor;
        tip.hidden = idx === null || idx === undefined || left === undefined || left < 0;
        if (tip.hidden) return;
        const time = document.createElement("strong");
        time.textContent = moment(1e3 * plot.data[0][idx ?? 0]);
        const rows = lines.flatMap(({ name, values }) => {
          const value = values[idx ?? 0];
          if (value === null) return [];
          const row = document.createElement("div");
          row.textContent = `${name}: ${format(value)}`;
          return [row];
        });
        tip.replaceChildren(time, ...rows.slice(0, LINES.length));
        const x = left ?? 0;
        tip.style.left = `${x + 14 + tip.offsetWidth > plot.over.clientWidth ? x - 14 - tip.offsetWidth : x + 14}px`;
        tip.style.top = "4px";
      },
    },
  };
}
