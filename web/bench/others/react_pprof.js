// A page that does with react-pprof what the others' pages do: shows the file that is chosen.

import { Profile } from "pprof-format";
import { createElement } from "react";
import { createRoot } from "react-dom/client";
import { FullFlameGraph } from "react-pprof";

const root = createRoot(document.getElementById("root"));
document.querySelector("input").addEventListener("change", async ({ target }) => {
  const bytes = await new Response(target.files[0].stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  root.render(createElement(FullFlameGraph, { profile: Profile.decode(new Uint8Array(bytes)), height: 800 }));
});
