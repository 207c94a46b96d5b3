//! The git revision that a program is built from: [`revision!`], for its `main.rs` alone.
//!
//! A macro and not a build script, for what is built anew and for what is true. A build script runs for a whole package: each commit would
//! compile the libraries beside our thin `main.rs` once more, and all that stands on them. A macro reads what its own file is compiled with,
//! and has the compiler watch two files of git (`HEAD` and `logs/HEAD`), which change with each commit and checkout: then only that `main.rs` is
//! compiled, and its program linked. And a build script does not run again when a source of another package is edited, so it could not
//! say `-dirty`. Here it can: whatever is compiled into a program, its `main.rs` is compiled after it, and git is asked then.
//!
//! So `-dirty` is left out only where the program is what its commit gives. It may stay where an edit of what is not compiled, such as a
//! document, is taken back: nothing is built then. Files that git does not know do not count, for it and for this.
//!
//! What belongs here: that answer. It must not be used in a library, whose users would pay for each commit.

mod git;

use std::path::Path;

use proc_macro::TokenStream;

/// The variable that says the revision instead of git, where a program is built without it.
const VARIABLE: &str = "AFTERGLOW_REVISION";

/// What is said where nobody knows.
const UNKNOWN: &str = "unknown";

/// Is the revision that this program is built from, a `&'static str`: what `AFTERGLOW_REVISION` says, or else the first 12 digits of the commit, with
/// `-dirty` behind them where files differ from it, or else `unknown`.
#[proc_macro]
pub fn revision(_: TokenStream) -> TokenStream {
    #[expect(clippy::disallowed_methods, reason = "cargo talks to macros in variables")]
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let given = variable(VARIABLE).map(|revision| git::Known { revision, watched: Vec::new() });
    let known = given.or_else(|| git::ask(Path::new(&variable("CARGO_MANIFEST_DIR")?)));
    expression(known).parse().expect("literals of strings are Rust")
}

/// Writes the expression. That it names the variable and the files makes the compiler tell cargo of them; it is built anew when they change.
fn expression(known: Option<git::Known>) -> String {
    let git::Known { revision, watched } =
        known.unwrap_or_else(|| git::Known { revision: UNKNOWN.to_owned(), watched: Vec::new() });
    let watched: String =
        watched.iter().map(|file| format!("const _: &[u8] = ::core::include_bytes!({file:?});")).collect();
    format!("{{ const _: ::core::option::Option<&str> = ::core::option_env!({VARIABLE:?}); {watched} {revision:?} }}")
}
