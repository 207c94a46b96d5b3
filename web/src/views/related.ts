// The other sample types of what a graph shows, so that a tooltip can say all of a frame: a heap's objects beside its bytes, a CPU profile's
// samples beside its time. Nothing is asked until a reader rests on a frame; then each type is fetched once, one after the other, as a tree
// like the one shown, and every frame after that is looked up in it. The alternative, a question a frame, would be asked at every rest of
// the pointer and merge anew each time.

import { useCallback, useEffect, useMemo, useState } from "react";

import type { SampleType } from "../api/answers";
import type { OtherTree } from "../flamegraph/tooltip";
import type { Tree } from "../flamegraph/tree";

/** Where trees of other sample types come from. */
export interface OtherTypes {
  /** What they are of: another key begins anew. */
  key: string;
  types: readonly SampleType[];
  load: (type: SampleType, signal: AbortSignal) => Tree | Promise<Tree>;
}

const NONE: readonly SampleType[] = [];

/** Returns the other types than `shown`, and what asks for them. */
export function useRelated(others: OtherTypes | undefined, shown: SampleType): { related: OtherTree[]; want: () => void } {
  const key = others === undefined ? "" : `${others.key} ${shown.type}`;
  const [wanted, setWanted] = useState("");
  const [loaded, setLoaded] = useState<{ key: string; trees: ReadonlyMap<string, Tree | null> }>({ key: "", trees: new Map() });
  const want = useCallback(() => setWanted(key), [key]);
  useEffect(() => {
    if (others === undefined || wanted !== key || key === "") return;
    const gone = new AbortController();
    const all = async (): Promise<void> => {
      const trees = new Map<string, Tree | null>();
      for (const type of others.types.filter((one) => one.type !== shown.type)) {
        const tree = await Promise.resolve(others.load(type, gone.signal)).catch(() => null);
        if (gone.signal.aborted) return;
        trees.set(type.type, tree);
        setLoaded({ key, trees: new Map(trees) });
      }
    };
    void all();
    return () => gone.abort();
    // The key stands for all that `others` closes over.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [wanted, key]);
  const types = others?.types ?? NONE;
  const related = useMemo(
    () =>
      types
        .filter(({ type }) => type !== shown.type)
        .map((sampleType): OtherTree => ({ sampleType, tree: loaded.key === key ? loaded.trees.get(sampleType.type) : undefined })),
    // `types` are those of the key.
    // eslint-disable-next-line react-hooks/exhaustive-deps
    [loaded, key, types.length, shown.type],
  );
  return { related, want };
}
