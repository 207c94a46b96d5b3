import { expect, test } from "vitest";

import { Queue } from "./queue";

const NEVER = new AbortController().signal;

/** Lets all promises that can go on do so. */
async function settle(): Promise<void> {
  await new Promise((wake) => setTimeout(wake, 0));
}

test("so many run at once, in the order of their coming, and a failure frees the place", async () => {
  const queue = new Queue(2);
  const begun: number[] = [];
  const ends: ((error?: Error) => void)[] = [];
  const all = [0, 1, 2, 3].map((i) =>
    queue.run(
      () =>
        new Promise<number>((resolve, reject) => {
          begun.push(i);
          ends[i] = (error) => (error === undefined ? resolve(i) : reject(error));
        }),
      NEVER,
    ),
  );
  const outcomes = Promise.allSettled(all);
  await settle();
  expect(begun).toEqual([0, 1]);
  ends[1](new Error("refused"));
  await settle();
  expect(begun).toEqual([0, 1, 2]);
  ends[0]();
  await settle();
  expect(begun).toEqual([0, 1, 2, 3]);
  ends[2]();
  ends[3]();
  expect((await outcomes).map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled", "fulfilled"]);
});

test("who gives up while waiting is never asked", async () => {
  const queue = new Queue(1);
  let end = (): void => undefined;
  const first = queue.run(() => new Promise<void>((resolve) => (end = resolve)), NEVER);
  const gone = new AbortController();
  let asked = false;
  const second = queue.run(() => {
    asked = true;
    return Promise.resolve();
  }, gone.signal);
  const third = queue.run(() => Promise.resolve("third"), NEVER);
  gone.abort(new Error("left the page"));
  end();
  await first;
  await expect(second).rejects.toThrow("left the page");
  expect(asked).toBe(false);
  expect(await third).toBe("third");
});
