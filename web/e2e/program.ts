// The program under test, and what it is started with.

import { join, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname, "../..");

/** Another build is named by the variable. */
export const PROGRAM = resolve(process.env["AFTERGLOW_PROGRAM"] ?? join(ROOT, "target/debug/afterglow"));

/** Its environment: the tests' own variables are no settings of it, and it refuses those it does not know. */
export const ENVIRONMENT = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("AFTERGLOW_")));
