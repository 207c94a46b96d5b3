// How the UI is built: plain files that a strict Content-Security-Policy lets through (nothing inline, no data: URLs), with names
// that carry a digest under assets/, so that browsers may keep them for ever.
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

// `npm run dev` shows the data of a server that runs already.
const server = process.env["AFTERGLOW_SERVER"] ?? "http://127.0.0.1:4100";

export default defineConfig({
  plugins: [react()],
  build: {
    target: "es2023",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The folder has a file that git keeps; package.json's `build` clears the rest.
    emptyOutDir: false,
    reportCompressedSize: false,
  },
  server: { proxy: { "/api": server, "/version": server } },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
