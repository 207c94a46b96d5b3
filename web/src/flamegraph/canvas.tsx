// The flame graph on the page: a canvas that sticks in a scrolled box, so that the browser scrolls the levels, and pointer and keyboard to
// move in it. It keeps the animated window and the frame in hand to itself; what belongs into a link it gets, and reports.

import { useCallback, useEffect, useId, useImperativeHandle, useLayoutEffect, useMemo, useRef, useState, type Ref } from "react";

import { coloursOf, paletteOf, type Colouring } from "./colour";
import { layoutOf, nodeAt } from "./layout";
import { contentHeight, depthAt, paint, ROW, rowY, type Scene, type Size } from "./paint";
import { Tooltip, type OtherTree } from "./tooltip";
import type { Tree } from "./tree";

/** How long a zoom takes in milliseconds: the eye can follow, the hand need not wait. */
const ZOOM_MILLIS = 160;
/** How much one turn of the wheel, or `+`, narrows the window. */
const ZOOM_STEP = 1.25;
/** The narrowest window, as a share of the root: below it 64-bit floats run out of pixels. */
const WINDOW_MIN = 1e-9;
/** How far a pointer moves, in CSS pixels, before a press is a drag. */
const DRAG_MIN = 4;

/** What a reader can do with a frame. */
export type FrameAction = "zoom" | "menu" | "copy" | "sandwich" | "focus" | "hide" | "search" | "collapse" | "source";

const NO_OTHERS: readonly OtherTree[] = [];

/** What others can ask of a graph. */
export interface FlameCanvasHandle {
  /** Returns the picture as it is shown. */
  toBlob: () => Promise<Blob | null>;
}

export interface FlameCanvasProps {
  tree: Tree;
  label: string;
  colouring: Colouring;
  theme: "light" | "dark";
  isFlame: boolean;
  /** Which names a search matches. */
  matches: Uint8Array | undefined;
  /** The node that fills the width. */
  zoomed: number;
  /** The same stacks by other sample types, for tooltips. */
  others?: readonly OtherTree[];
  /** The reader rests on a frame: time to ask for the other sample types. */
  onRest?: () => void;
  onAction: (action: FrameAction, node: number, at: { x: number; y: number }) => void;
  ref?: Ref<FlameCanvasHandle>;
}

export function FlameCanvas(props: FlameCanvasProps) {
  const { tree, theme, colouring, isFlame, matches, zoomed, onAction } = props;
  const layout = useMemo(() => layoutOf(tree), [tree]);
  const colours = useMemo(() => coloursOf(tree, colouring), [tree, colouring]);
  const palette = useMemo(() => paletteOf(theme, colouring), [theme, colouring]);
  const canvas = useRef<HTMLCanvasElement>(null);
  const box = useRef<HTMLDivElement>(null);
  const size = useRef<Size>({ width: 0, height: 0, ratio: 1 });
  const scene = useRef<Scene>(null);
  const asked = useRef(0);
  const [current, setCurrent] = useState<{ node: number; x: number; y: number; byKey: boolean }>();
  const description = useId();

  const draw = useCallback(() => {
    if (asked.current !== 0) return;
    asked.current = requestAnimationFrame(() => {
      asked.current = 0;
      const context = canvas.current?.getContext("2d", { alpha: false });
      if (context && scene.current !== null && size.current.width > 0) paint(context, scene.current, size.current);
    });
  }, []);
  useEffect(
    () => () => {
      cancelAnimationFrame(asked.current);
      asked.current = 0;
    },
    [],
  );

  // A new tree, theme or search: the same window, unless the tree is another.
  useLayoutEffect(() => {
    const before = scene.current;
    const same = before?.layout === layout;
    scene.current = {
      layout,
      palette,
      colours,
      matches,
      isFlame,
      start: same ? before.start : layout.left[zoomed],
      end: same ? before.end : layout.left[zoomed] + Math.max(layout.width[zoomed], Number.MIN_VALUE),
      scroll: box.current?.scrollTop ?? 0,
      current: same ? before.current : undefined,
    };
    draw();
    // The window of a new tree is that of its zoomed node; later zooms are animated below.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [layout, palette, colours, matches, isFlame, draw]);

  // The size of the box and of the device's pixels.
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    const fit = (): void => {
      const ratio = globalThis.devicePixelRatio;
      const next = { width: element.clientWidth, height: element.clientHeight, ratio };
      size.current = next;
      if (canvas.current) {
        canvas.current.width = Math.round(next.width * ratio);
        canvas.current.height = Math.round(next.height * ratio);
        canvas.current.style.width = `${next.width}px`;
        canvas.current.style.height = `${next.height}px`;
      }
      draw();
    };
    fit();
    const observer = new ResizeObserver(fit);
    observer.observe(element);
    const media = matchMedia(`(resolution: ${globalThis.devicePixelRatio}dppx)`);
    media.addEventListener("change", fit);
    return () => {
      observer.disconnect();
      media.removeEventListener("change", fit);
    };
  }, [draw]);

  // A flame begins at its root, which is at the bottom.
  useLayoutEffect(() => {
    if (box.current) box.current.scrollTop = isFlame ? box.current.scrollHeight : 0;
  }, [isFlame, layout]);

  // Slides to the zoomed node.
  useEffect(() => {
    const at = scene.current;
    if (at === null || box.current === null) return;
    const from = { start: at.start, end: at.end };
    const to = { start: layout.left[zoomed], end: layout.left[zoomed] + Math.max(layout.width[zoomed], Number.MIN_VALUE) };
    reveal(box.current, at, size.current, layout.tree.depth[zoomed]);
    if (from.start === to.start && from.end === to.end) return;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const began = performance.now();
    let frame = 0;
    const step = (now: number): void => {
      const t = still ? 1 : Math.min(1, Math.max(0, (now - began) / ZOOM_MILLIS));
      const eased = 1 - (1 - t) ** 3;
      at.start = from.start + (to.start - from.start) * eased;
      at.end = from.end + (to.end - from.end) * eased;
      draw();
      if (t < 1) frame = requestAnimationFrame(step);
    };
    frame = requestAnimationFrame(step);
    return () => cancelAnimationFrame(frame);
  }, [zoomed, layout, draw]);

  useImperativeHandle(props.ref, () => ({
    toBlob: () => new Promise((resolve) => (canvas.current ? canvas.current.toBlob(resolve) : resolve(null))),
  }));

  const pick = useCallback(
    (node: number | undefined, x: number, y: number, byKey = false) => {
      if (scene.current) scene.current.current = node;
      setCurrent(node === undefined ? undefined : { node, x, y, byKey });
      draw();
    },
    [draw],
  );

  const frameAt = useCallback((clientX: number, clientY: number): number | undefined => {
    const at = scene.current;
    if (at === null || !canvas.current) return undefined;
    const bounds = canvas.current.getBoundingClientRect();
    const share = (clientX - bounds.left) / bounds.width;
    return nodeAt(at.layout, depthAt(at, size.current.height, clientY - bounds.top), at.start + share * (at.end - at.start));
  }, []);

  const widen = useCallback(
    (factor: number, share: number) => {
      const at = scene.current;
      if (at === null) return;
      const whole = at.layout.width[0];
      const pivot = at.start + share * (at.end - at.start);
      const width = Math.min(whole, Math.max(whole * WINDOW_MIN, (at.end - at.start) * factor));
      at.start = Math.min(Math.max(0, pivot - share * width), whole - width);
      at.end = at.start + width;
      draw();
    },
    [draw],
  );

  const shift = useCallback(
    (share: number) => {
      const at = scene.current;
      if (at === null) return;
      const width = at.end - at.start;
      at.start = Math.min(Math.max(0, at.start + share * width), at.layout.width[0] - width);
      at.end = at.start + width;
      draw();
    },
    [draw],
  );

  // React's wheel listeners are passive; a zoom must keep the page from zooming as well.
  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    const onWheel = (event: WheelEvent): void => {
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        const bounds = element.getBoundingClientRect();
        widen(event.deltaY > 0 ? ZOOM_STEP : 1 / ZOOM_STEP, (event.clientX - bounds.left) / bounds.width);
      } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault();
        shift((event.deltaX || event.deltaY) / Math.max(1, size.current.width));
      }
    };
    element.addEventListener("wheel", onWheel, { passive: false });
    return () => element.removeEventListener("wheel", onWheel);
  }, [shift, widen]);

  const drag = useRef<{ x: number; y: number; scroll: number; moved: boolean }>(null);

  const onKeyDown = (event: React.KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = scene.current;
    if (at === null) return;
    const node = at.current ?? zoomed;
    const moveTo = (next: number | undefined): void => {
      event.preventDefault();
      if (next === undefined || box.current === null) return;
      reveal(box.current, at, size.current, tree.depth[next]);
      const left = (layout.left[next] - at.start) / (at.end - at.start);
      const x = Math.min(0.9, Math.max(0, left)) * size.current.width;
      pick(next, x, rowY({ ...at, scroll: box.current.scrollTop }, size.current.height, tree.depth[next]) + ROW, true);
    };
    const act = (action: FrameAction): void => {
      event.preventDefault();
      onAction(action, node, placeOf(box.current, current));
    };
    const deeper = widestChild(tree, layout.width, node);
    const higher = node === 0 ? undefined : tree.parent[node];
    switch (event.key) {
      case "ArrowUp":
        moveTo(isFlame ? deeper : higher);
        break;
      case "ArrowDown":
        moveTo(isFlame ? higher : deeper);
        break;
      case "ArrowLeft":
        moveTo(neighbour(layout.levels[tree.depth[node]], node, -1));
        break;
      case "ArrowRight":
        moveTo(neighbour(layout.levels[tree.depth[node]], node, 1));
        break;
      case "Home":
        moveTo(0);
        break;
      case "Enter":
      case " ":
        act("zoom");
        break;
      case "Backspace":
        event.preventDefault();
        onAction("zoom", tree.parent[zoomed], { x: 0, y: 0 });
        break;
      case "Escape":
        if (zoomed !== 0) event.stopPropagation();
        onAction("zoom", 0, { x: 0, y: 0 });
        pick(undefined, 0, 0);
        break;
      case "+":
      case "=":
        widen(1 / ZOOM_STEP, 0.5);
        break;
      case "-":
        widen(ZOOM_STEP, 0.5);
        break;
      case "c":
        act("copy");
        break;
      case "s":
        act("sandwich");
        break;
      case "o":
        act("source");
        break;
      case "f":
        act("focus");
        break;
      case "h":
        act("hide");
        break;
      case "m":
      case "ContextMenu":
        act("menu");
        break;
      default:
    }
  };

  return (
    <div className="flame">
      <div
        className="flame-box"
        ref={box}
        role="application"
        aria-label={props.label}
        aria-describedby={description}
        aria-roledescription="flame graph"
        tabIndex={0}
        onKeyDown={onKeyDown}
        onScroll={(event) => {
          if (scene.current) scene.current.scroll = event.currentTarget.scrollTop;
          draw();
        }}
        onPointerDown={(event) => {
          if (event.button !== 0 || !box.current) return;
          drag.current = { x: event.clientX, y: event.clientY, scroll: box.current.scrollTop, moved: false };
        }}
        onPointerMove={(event) => {
          const held = drag.current;
          if (held !== null && (event.buttons & 1) === 1) {
            const dx = event.clientX - held.x;
            if (!held.moved && Math.hypot(dx, event.clientY - held.y) < DRAG_MIN) return;
            if (!held.moved) event.currentTarget.setPointerCapture(event.pointerId);
            held.moved = true;
            shift(-dx / Math.max(1, size.current.width));
            held.x = event.clientX;
            event.currentTarget.scrollTop = held.scroll + held.y - event.clientY;
            pick(undefined, 0, 0);
            return;
          }
          const bounds = event.currentTarget.getBoundingClientRect();
          pick(frameAt(event.clientX, event.clientY), event.clientX - bounds.left, event.clientY - bounds.top);
        }}
        onPointerLeave={() => pick(undefined, 0, 0)}
        onPointerUp={(event) => {
          const held = drag.current;
          drag.current = null;
          if (held === null || held.moved) return;
          const node = frameAt(event.clientX, event.clientY);
          if (node !== undefined) onAction("zoom", node, { x: event.clientX, y: event.clientY });
        }}
        onContextMenu={(event) => {
          const node = frameAt(event.clientX, event.clientY);
          if (node === undefined) return;
          event.preventDefault();
          onAction("menu", node, { x: event.clientX, y: event.clientY });
        }}
        data-levels={layout.levels.length}
      >
        <div className="flame-content" style={{ height: contentHeight(layout) }}>
          <canvas ref={canvas} />
        </div>
      </div>
      {current === undefined || current.node >= tree.count ? null : (
        <Tooltip
          tree={tree}
          node={current.node}
          x={current.x}
          y={current.y}
          width={size}
          isLive={current.byKey}
          others={props.others ?? NO_OTHERS}
          onRest={props.onRest}
        />
      )}
      <p id={description} className="unseen">
        Arrow keys move between frames, Enter zooms, Escape shows all, s shows callers and callees, f focuses, h hides, o opens the source,
        c copies the name, m opens the menu.
      </p>
    </div>
  );
}

/** Scrolls a level into view. */
function reveal(box: HTMLElement, scene: Scene, size: Size, depth: number): void {
  const y = rowY({ ...scene, scroll: 0 }, size.height, depth);
  if (y < box.scrollTop) box.scrollTop = y - ROW;
  else if (y + ROW > box.scrollTop + size.height) box.scrollTop = y + 2 * ROW - size.height;
}

function widestChild(tree: Tree, width: Float64Array, node: number): number | undefined {
  let best: number | undefined;
  for (let child = node + 1; child < tree.end[node]; child = tree.end[child]) {
    if (best === undefined || width[child] > width[best]) best = child;
  }
  return best;
}

function neighbour(level: Uint32Array, node: number, step: number): number | undefined {
  // Nodes of a level ascend, as they are in depth-first order.
  let low = 0;
  let high = level.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (level[middle] < node) low = middle + 1;
    else high = middle;
  }
  return low + step >= 0 && low + step < level.length ? level[low + step] : undefined;
}

function placeOf(box: HTMLElement | null, current: { x: number; y: number } | undefined): { x: number; y: number } {
  const bounds = box?.getBoundingClientRect();
  return { x: (bounds?.left ?? 0) + (current?.x ?? 0), y: (bounds?.top ?? 0) + (current?.y ?? 0) };
}
