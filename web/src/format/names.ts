// Names of functions as compilers write them: which package one belongs to, and what is left of it where there is no room.
//
// Go: `net/http.(*conn).serve`, generics in brackets. Rust and C++: `tokio::runtime::task::poll`, `<T as Trait>::call`. Java and Python:
// dots. JavaScript and C have bare names.

/** Returns the package, crate, namespace or module of a function; empty for a bare name. */
export function packageOf(name: string): string {
  // Type parameters may contain any path: they are no part of the function's own.
  const bare = withoutParameters(name).replace(/^<+&?(?:mut |dyn )?/, "");
  const colons = bare.indexOf("::");
  const slash = bare.lastIndexOf("/");
  if (colons > 0 && slash < colons) return bare.slice(0, colons);
  const dot = bare.indexOf(".", slash + 1);
  if (dot > 0) return bare.slice(0, dot);
  return slash > 0 ? bare.slice(0, slash) : "";
}

/** Returns the function without the folders of its package: `http.(*conn).serve`. */
export function shortName(name: string): string {
  const bracket = name.search(/[[<(]/);
  const slash = name.lastIndexOf("/", bracket < 0 ? undefined : bracket);
  return slash > 0 ? name.slice(slash + 1) : name;
}

function withoutParameters(name: string): string {
  const bracket = name.indexOf("[");
  return bracket > 0 ? name.slice(0, bracket) : name;
}
