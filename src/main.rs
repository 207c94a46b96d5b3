//! `afterglow`: every role in one program, and the command line.
//!
//! | command | file |
//! |---|---|
//! | `serve` | `serve.rs`: ingester and querier in one process |
//! | `ingester`, `querier`, `agent` | the tiers' own programs, from their crates |
//! | `push`, `search`, `fetch`, `merge`, `diff`, `export`, `series`, `top`, `function`, `regressions`, `statistics`, `stats`, `labels` | `cli/`: a file each |
//! | `maintain`, `verify`, `bucket`, `token` | `cli/`: a file each, too |
//! | `completions`, `man` | for the shell, and for `man` |

mod cli;
#[cfg(test)]
mod docs;
mod serve;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use afterglow_agent::debug::SelfProfiles;
use afterglow_service::causes::Causes;
use afterglow_service::config::{self, Settings};
use anyhow::Context as _;
use clap::{CommandFactory as _, Parser};
use clap_complete::Shell;
use tikv_jemallocator::Jemalloc;

/// Profiles are allocated on one thread and freed on another, which jemalloc bears without growing; and it can profile the heap.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What it is built from.
const REVISION: &str = afterglow_revision::revision!();

/// Continuous profiling that needs a bucket and nothing else
#[derive(Debug, Parser)]
#[command(name = "afterglow", version, propagate_version = true)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(Box<serve::Args>),
    Ingester(Box<afterglow_ingester::Settings>),
    Querier(Box<afterglow_querier::Settings>),
    Agent(Box<afterglow_agent::program::Settings>),
    Push(cli::push::Args),
    Search(cli::search::Args),
    Fetch(cli::fetch::Args),
    Merge(cli::merge::Args),
    Diff(cli::diff::Args),
    Series(cli::series::Args),
    Export(cli::export::Args),
    Top(cli::top::Args),
    Function(cli::function::Args),
    Regressions(cli::regressions::Args),
    Statistics(cli::statistics::Args),
    Stats(cli::stats::Args),
    Labels(cli::labels::Args),
    Maintain(cli::maintain::Args),
    Verify(cli::verify::Args),
    Token(cli::token::Args),
    #[command(subcommand)]
    Bucket(cli::bucket::Command),
    /// Prints a completion script
    #[command(
        after_help = "Examples:\n  source <(afterglow completions bash)\n  source <(afterglow completions bash afterglow-agent)"
    )]
    Completions {
        /// The shell to complete in.
        #[arg(value_name = "SHELL")]
        shell: Shell,
        /// The program to complete: this one, or that of a single tier.
        #[arg(value_name = "PROGRAM", default_value = "afterglow")]
        program: Completed,
    },
    /// Writes manual pages, one for each command
    #[command(after_help = "Examples:\n  afterglow man ~/.local/share/man/man1 && man afterglow-push")]
    Man {
        /// The folder to write them into; it is made where it is missing.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

/// A program whose command line can be completed.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Completed {
    Afterglow,
    AfterglowAgent,
    AfterglowIngester,
    AfterglowQuerier,
}

// === impl Completed ===

impl Completed {
    fn command(self) -> clap::Command {
        match self {
            Self::Afterglow => Program::command(),
            Self::AfterglowAgent => afterglow_agent::program::Settings::command(),
            Self::AfterglowIngester => afterglow_ingester::Settings::command(),
            Self::AfterglowQuerier => afterglow_querier::Settings::command(),
        }
    }
}

// === impl Program ===

impl Settings for Program {
    fn problems(&self) -> Vec<String> {
        match &self.command {
            Command::Serve(args) => args.problems(),
            Command::Ingester(settings) => settings.problems(),
            Command::Querier(settings) => settings.problems(),
            Command::Agent(settings) => settings.problems(),
            Command::Maintain(args) => args.problems(),
            Command::Verify(args) => args.problems(),
            Command::Bucket(command) => command.problems(),
            _ => Vec::new(),
        }
    }

    fn printed(&self, flags: &str) -> Option<String> {
        match &self.command {
            Command::Agent(settings) => settings.printed(flags),
            _ => None,
        }
    }
}

fn main() -> ExitCode {
    let program = match config::load::<Program>(REVISION) {
        Ok(program) => program,
        Err(exit) => return exit.report(),
    };
    let runtime = tokio::runtime::Runtime::new().expect("the system gives threads to a process that just began");
    runtime.block_on(run(program.command))
}

async fn run(command: Command) -> ExitCode {
    let profiles = || Some(Arc::new(SelfProfiles) as _);
    match command {
        Command::Serve(args) => serve::run(*args).await.map_or_else(serve::Error::report, success),
        Command::Ingester(settings) => afterglow_ingester::run(*settings, REVISION, profiles())
            .await
            .map_or_else(afterglow_ingester::program::Error::report, success),
        Command::Querier(settings) => afterglow_querier::run(*settings, REVISION, profiles())
            .await
            .map_or_else(afterglow_querier::program::Error::report, success),
        Command::Agent(settings) => afterglow_agent::program::run(*settings, REVISION)
            .await
            .map_or_else(afterglow_agent::program::Error::report, success),
        Command::Push(args) => done(cli::push::run(args).await),
        Command::Search(args) => done(cli::search::run(args).await),
        Command::Fetch(args) => done(cli::fetch::run(args).await),
        Command::Merge(args) => done(cli::merge::run(args).await),
        Command::Diff(args) => done(cli::diff::run(args).await),
        Command::Series(args) => done(cli::series::run(args).await),
        Command::Export(args) => done(cli::export::run(args).await),
        Command::Top(args) => done(cli::top::run(args).await),
        Command::Function(args) => done(cli::function::run(args).await),
        Command::Regressions(args) => done(cli::regressions::run(args).await),
        Command::Statistics(args) => done(cli::statistics::run(args).await),
        Command::Stats(args) => done(cli::stats::run(args).await),
        Command::Labels(args) => done(cli::labels::run(args).await),
        Command::Maintain(args) => done(cli::maintain::run(args).await),
        Command::Verify(args) => done(cli::verify::run(args).await),
        Command::Token(args) => done(cli::token::run(args)),
        Command::Bucket(command) => done(cli::bucket::run(command).await),
        Command::Completions { shell, program } => {
            let mut command = program.command();
            let name = command.get_name().to_owned();
            clap_complete::generate(shell, &mut command, name, &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Man { folder } => done(write_manual(&folder)),
    }
}

/// Writes a page for each command, with the environment variable of each setting.
fn write_manual(folder: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot write manual pages into {}", folder.display());
    std::fs::create_dir_all(folder).with_context(cannot)?;
    clap_mangen::generate_to(config::with_environment_in_help(Program::command()), folder).with_context(cannot)
}

/// The exit code of wrong usage, as clap has it.
const USAGE: u8 = 2;

fn success((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

/// Says on standard error why a command failed.
fn done(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let is_usage = error.is::<cli::Usage>();
            let _ = writeln!(std::io::stderr(), "error: {}", Causes(&*error));
            if is_usage { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}
