//! Where a program's settings come from: flags over environment over file over default.
//!
//! A program describes its settings once, as a clap parser whose long flags are the names everywhere: `--limits.max-body` is also
//! `AFTERGLOW_LIMITS_MAX_BODY` in the environment and `max-body` under `[limits]` in the TOML file given by `--config`. [`load`] reads all
//! of them, refuses what nobody knows, and reports everything that is wrong at once, before a port opens.
//!
//! This is the only place that reads environment variables of our own; those of others (AWS_*, OTEL_*, RUST_LOG) are read where
//! they are meant.

mod value;

use std::process::ExitCode;

pub use value::{ByteSize, Secret};

/// The flags about configuration itself, flattened into each program that has a file.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Reads settings from this TOML file; flags and environment go over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<std::path::PathBuf>,
    /// Prints the settings in effect, with secrets masked, and exits
    #[arg(long)]
    pub print_config: bool,
    /// Checks the settings and exits: 0 when they are good, 78 when not
    #[arg(long)]
    pub check_config: bool,
}

/// A program's settings: a clap parser that can say what is wrong with the whole.
pub trait Settings: clap::Parser {
    /// Returns what is wrong with the settings beyond each single value, one sentence each; all of them are reported.
    fn problems(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Why a program ends before it begins: help was asked for, or the settings are bad.
#[derive(Debug)]
pub struct Exit {
    error: clap::Error,
}

// === impl Exit ===

impl Exit {
    /// Prints to the terminal what there is to say and returns the exit code: 0 for help, 2 for usage, 78 for bad configuration.
    pub fn report(self) -> ExitCode {
        let code = u8::try_from(self.error.exit_code()).unwrap_or(1);
        // Nobody is left to tell when the terminal is gone.
        let _ = self.error.print();
        ExitCode::from(code)
    }
}

/// Reads the settings of this process from its arguments, its environment and its file.
///
/// # Errors
/// An [`Exit`] for `main` to report and return.
pub fn load<C: Settings>() -> Result<C, Exit> {
    C::try_parse().map_err(|error| Exit { error })
}
