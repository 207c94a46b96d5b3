import { afterEach, expect, test, vi } from "vitest";

import { ask, download } from "./client";

afterEach(() => vi.unstubAllGlobals());

/** Answers every question with such a body. */
function answering(body: BodyInit): void {
  vi.stubGlobal("location", { host: "here" });
  vi.stubGlobal("fetch", () => Promise.resolve(new Response(body)));
}

/** A body of which a part comes. */
function broken(): ReadableStream<Uint8Array> {
  const parts = [new TextEncoder().encode('{"profiles":')];
  return new ReadableStream({
    pull(controller) {
      const part = parts.shift();
      if (part === undefined) controller.error(new TypeError("network error"));
      else controller.enqueue(part);
    },
  });
}

test("an answer that breaks off is asked for again, not taken for a wrong file", async () => {
  for (const asking of [() => ask("/x"), () => ask("/x", {}, { onProgress: () => undefined }), () => download("/x")]) {
    answering(broken());
    await expect(asking()).rejects.toMatchObject({ code: "UNREACHABLE", message: "the answer of here broke off" });
  }
});

test("what is no JSON is named", async () => {
  answering("<html>sign in</html>");
  await expect(ask("/x")).rejects.toMatchObject({ code: "UNKNOWN", message: expect.stringContaining("something else than JSON") as string });
});

test("a file says how much of it has come", async () => {
  answering(new Uint8Array(1_000));
  const heard: number[] = [];
  const file = await download("/x", {}, { onProgress: (bytes) => heard.push(bytes) });
  expect([file.size, heard.at(-1)]).toEqual([1_000, 1_000]);
});
