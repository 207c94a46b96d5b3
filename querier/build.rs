//! Embeds the web UI, where it is built: writes a table of the files in `web/dist`, each by `include_bytes!`, for `src/http/web.rs`.
//!
//! Without Node there are no such files and the table is empty; the querier then serves a page that says how to build them. The folder
//! exists either way, so that cargo notices when `make web` fills it.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Where the built files lie, seen from this crate.
const DIST: &str = "../web/dist";

#[allow(clippy::disallowed_methods, reason = "cargo tells a build script by its environment alone where things are")]
fn main() -> Result<(), Box<dyn Error>> {
    let dist = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join(DIST);
    println!("cargo::rerun-if-changed={DIST}");
    let mut files = Vec::new();
    if dist.is_dir() {
        collect(&dist, &mut files)?;
    }
    files.sort();
    let mut table = String::from("&[\n");
    for file in &files {
        let path = file.strip_prefix(&dist)?.to_str().ok_or("a file of the web UI has a name that is not UTF-8")?;
        writeln!(
            table,
            "    Asset {{ path: {:?}, bytes: include_bytes!({:?}) }},",
            format!("/{path}"),
            file.canonicalize()?
        )?;
    }
    table.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("web.rs"), table)?;
    Ok(())
}

/// Collects the files below a folder; hidden ones are git's, not the UI's.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}
