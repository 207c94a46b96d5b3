//! A small program in a repository of its own, built and run by cargo as edits, commits and worktrees come: it says each time what it is.

#![allow(clippy::disallowed_methods, reason = "a test starts programs in an environment of its own")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A repository with a program, and where it is built.
struct World {
    root: TempDir,
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut git = Command::new("git");
    // A hook that runs these tests says which repository is its own.
    ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"].iter().for_each(|name| _ = git.env_remove(name));
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    git.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]).args(arguments);
    text(git.current_dir(folder).output().expect("git is there"))
}

/// Commits everything, and returns the revision.
fn commit(folder: &Path) -> String {
    git(folder, &["add", "--all"]);
    git(folder, &["commit", "--quiet", "--allow-empty", "--message", "a change"]);
    git(folder, &["rev-parse", "--short=12", "HEAD"])
}

// === impl World ===

impl World {
    fn new() -> Self {
        let world = Self { root: TempDir::new().expect("a folder") };
        let program = world.program();
        fs::create_dir_all(program.join("src")).expect("a folder");
        let manifest = format!(
            "[package]\nname = \"said\"\nedition = \"2024\"\n[workspace]\n[dependencies]\nafterglow-revision = {{ path = {:?} }}\n",
            env!("CARGO_MANIFEST_DIR")
        );
        fs::write(program.join("Cargo.toml"), manifest).expect("a file");
        fs::write(program.join("README.md"), "what it is").expect("a file");
        world.edit("");
        world
    }

    fn program(&self) -> PathBuf {
        self.root.path().join("program")
    }

    fn edit(&self, text: &str) {
        let main = format!("fn main() {{ println!(\"{{}}{text}\", afterglow_revision::revision!()) }}\n");
        fs::write(self.program().join("src/main.rs"), main).expect("a file");
    }

    /// Builds the program in a folder, where cargo finds that it has to be built, and returns what it says. Each folder has its own target, for
    /// cargo takes two worktrees for one package.
    fn says_in(&self, folder: &Path, variables: &[(&str, &str)]) -> String {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["run", "--quiet", "--offline"]).current_dir(folder);
        cargo.env("CARGO_TARGET_DIR", folder.with_extension("target")).env_remove("AFTERGLOW_REVISION");
        text(cargo.envs(variables.iter().copied()).output().expect("cargo is there"))
    }

    fn says(&self) -> String {
        self.says_in(&self.program(), &[])
    }
}

#[test]
fn a_program_says_what_it_is_built_from_after_each_edit_and_commit() {
    let world = World::new();
    let program = world.program();
    git(&program, &["init", "--quiet"]);
    assert_eq!(world.says(), "unknown", "a package that git does not know is not of the repository around it");
    let first = commit(&program);
    // Nothing that is compiled has changed since it was unknown, and nothing was watched.
    world.edit("");
    assert_eq!((world.says(), first.len()), (first.clone(), 12));

    world.edit("!");
    assert_eq!(world.says(), format!("{first}-dirty!"));
    let second = commit(&program);
    assert_eq!(world.says(), format!("{second}!"), "what was an edit is a commit");
    let third = commit(&program);
    assert_ne!(third, second);
    assert_eq!(world.says(), format!("{third}!"), "a commit without a change is another revision");
    git(&program, &["tag", "--annotate", "--message", "a tag", "v1"]);
    git(&program, &["checkout", "--quiet", "--detach", &first]);
    assert_eq!(world.says(), first, "another revision is checked out");
    git(&program, &["checkout", "--quiet", "main"]);

    fs::write(program.join("README.md"), "what else it is").expect("a file");
    assert_eq!(world.says_in(&program, &[("AFTERGLOW_REVISION", "of a tarball")]), "of a tarball!");
    assert_eq!(world.says_in(&program, &[("AFTERGLOW_REVISION", "")]), format!("{third}-dirty!"), "empty is not said");
    assert_eq!(world.says(), format!("{third}-dirty!"));
    git(&program, &["checkout", "--quiet", "--", "."]);

    let hook = [("GIT_DIR", "/nonexistent"), ("GIT_INDEX_FILE", "/nonexistent"), ("GIT_WORK_TREE", "/nonexistent")];
    world.edit("!!");
    assert_eq!(world.says_in(&program, &hook), format!("{third}-dirty!!"), "a hook has the repository that it is of");
    git(&program, &["checkout", "--quiet", "--", "."]);

    let worktree = world.root.path().join("worktree");
    git(&program, &["worktree", "add", "--quiet", "--detach", worktree.to_str().expect("text"), &second]);
    assert_eq!(world.says_in(&worktree, &[]), format!("{second}!"));
    let fourth = commit(&worktree);
    assert_eq!(world.says_in(&worktree, &[]), format!("{fourth}!"), "a worktree has a head of its own");
    assert_eq!(world.says(), format!("{third}!"), "and leaves that of the repository alone");
}

#[test]
fn a_program_of_an_archive_does_not_know() {
    let world = World::new();
    assert_eq!(world.says(), "unknown");
    assert_eq!(world.says_in(&world.program(), &[("AFTERGLOW_REVISION", "1a2b")]), "1a2b", "unless it is told");
}
