//! What git says of a folder.

use std::path::Path;
use std::process::Command;

/// A revision, and by what one sees that it may be another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The revision.
    pub(crate) revision: String,
    /// Files that change when another one is checked out.
    pub(crate) watched: Vec<String>,
}

/// Variables by which git takes another repository than that of the folder. Hooks have them.
const MISLEADING: [&str; 3] = ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"];

/// Asks git what the package in `folder` is of; none where it does not know the package, or where nothing would tell of the next commit.
///
/// Not every folder in a repository belongs to it: packages of a registry may lie in a home folder that is one.
pub(crate) fn ask(folder: &Path) -> Option<Known> {
    git(folder, &["ls-files", "--error-unmatch", "Cargo.toml"])?;
    // A tag may come later, and changes no file that is watched.
    let revision = git(folder, &["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])?;
    // In a worktree they lie elsewhere than in the repository.
    let files = git(folder, &["rev-parse", "--git-path", "HEAD", "--git-path", "logs/HEAD"])?;
    let watched = files.lines().map(|file| {
        let file = folder.join(file).canonicalize().ok()?;
        Some(file.to_str()?.to_owned())
    });
    Some(Known { revision: revision.trim_end().to_owned(), watched: watched.collect::<Option<_>>()? })
}

/// Runs git, and returns what it says; none where it is not there, or fails.
fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    MISLEADING.iter().for_each(|name| _ = command.env_remove(name));
    // Whoever commits meanwhile is not to find the index locked.
    let output = command.arg("--no-optional-locks").args(arguments).current_dir(folder).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok()).flatten()
}
