// The browser tests: the real server with really recorded profiles, and Debian's Chromium. One server and one browser for all of them.
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["e2e/**/*.test.ts"],
    globalSetup: ["e2e/server.ts"],
    fileParallelism: false,
    // A browser on a busy machine now and then loses an event. What fails three times in a row is a fault of ours; the report marks what was tried again.
    retry: 2,
    testTimeout: 60_000,
    hookTimeout: 180_000,
  },
});
