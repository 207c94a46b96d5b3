// What kind of code a function is: the reader's own, a library's, the language's runtime, or the kernel. Told by what the profile says of
// it, the surest first: the mapping it was loaded from, the file it was compiled from, its name. It is a guess that colours frames and
// nothing more; where nothing is known it says so.
//
// Files are told by where tools put the code of others: Go's module cache and GOROOT (also as `-trimpath` writes them), Cargo's registry and
// the sources of Rust's library, node_modules, site-packages, folders called vendor, and /usr.

import type { Origin } from "../flamegraph/tree";

/** The kinds, in the order of the legend. */
export const KINDS = ["own", "library", "runtime", "kernel", "unknown"] as const;

export type Kind = (typeof KINDS)[number];

/** What the legend calls them. */
export const KIND_NAMES: Record<Kind, string> = {
  own: "own code",
  library: "library",
  runtime: "runtime",
  kernel: "kernel",
  unknown: "unknown",
};

const KERNEL_MAPPING = /^\[(?:kernel|guest\.kernel|vdso|vsyscall)|\/vmlinux|\.ko(?:\.[xg]z|\.zst)?$/;
const KERNEL_NAME = /_\[k\]$|^\[kernel|^\[vdso\]$/;
/** C's library, the loader and its like, and the machines of Java, Python and JavaScript. */
const RUNTIME_MAPPING = /\/(?:ld-linux|ld-musl|lib(?:c|m|pthread|dl|rt|gcc_s|stdc\+\+|c\+\+|c\+\+abi|jvm|jli|python3?|node|v8|ruby|coreclr|clrjit)\b)[^/]*$/;
const LIBRARY_MAPPING = /\.so(?:\.\d+)*$|\.dylib$|\.dll$/i;
/** Go's runtime, Rust's entry, V8's pseudo functions, Python's frozen modules. */
const RUNTIME_NAME =
  /^runtime(?:\/internal)?[./]|^internal\/runtime\/|^(?:gcWriteBarrier|memeqbody|cmpbody|indexbytebody|aeshashbody)$|^\((?:garbage collector|program|idle)\)$|^v8::|^std::rt::|^__libc_start|^_start$/;
const RUNTIME_FILE = /^node:internal|^<frozen |\/(?:go[^/]*|golang)\/src\/(?:runtime|internal\/runtime)\/|^(?:runtime|internal\/runtime)\//;
const LIBRARY_FILE =
  /\/pkg\/mod\/|@v\d[^/]*\/|(?:^|\/)vendor\/|\/node_modules\/|^node:|\/(?:site|dist)-packages\/|\/\.cargo\/(?:registry|git)\/|^\/rustc\/|\/rustlib\/src\/|^\/usr\/(?!src\/app\/)|\/lib\/python\d/;
/** Go's standard library below GOROOT, or as -trimpath writes it: the folders of its packages have no dot. */
const GO_STANDARD_FILE = /^[a-z0-9]+(?:\/[a-z0-9]+)*\/[^/.]+\.(?:go|s)$/;
/** Where there is no file, Rust's own crates are known by name. */
const LIBRARY_NAME = /^<?(?:core|alloc|std)::/;
/** A bare address, or a mapping in the place of a name. */
const NO_NAME = /^0x[0-9a-f]+$|^\[.*\]$|^<unknown>$|^$/i;

/** Tells the kind of a function. */
export function kindOf(name: string, origin: Origin | undefined): Kind {
  const { file = "", mapping = "" } = origin ?? {};
  if (KERNEL_MAPPING.test(mapping) || KERNEL_NAME.test(name)) return "kernel";
  if (RUNTIME_NAME.test(name) || RUNTIME_FILE.test(file) || RUNTIME_MAPPING.test(mapping)) return "runtime";
  if (LIBRARY_FILE.test(file) || LIBRARY_MAPPING.test(mapping) || isGoStandard(name, file)) return "library";
  if (NO_NAME.test(name)) return "unknown";
  return file === "" && LIBRARY_NAME.test(name) ? "library" : "own";
}

function isGoStandard(name: string, file: string): boolean {
  // The folder of the file is the package of the name: `encoding/json/decode.go` and `encoding/json.Unmarshal`.
  const path = file.replace(/^.*\/go[^/]*\/src\//, "");
  return GO_STANDARD_FILE.test(path) && name.startsWith(`${path.slice(0, path.lastIndexOf("/"))}.`);
}
