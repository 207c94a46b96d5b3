//! `--explain`: what an answer cost, on standard error.

use std::io::Write as _;

use afterglow_proto::Duration;
use afterglow_proto::v1::{Completeness, Explain};
use afterglow_service::config::ByteSize;

use super::table::counted;
use super::{warn, warn_incomplete};

/// Whether a command says what its answer cost.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct ExplainArgs {
    /// Says on standard error what the answer cost: requests, bytes, what was in memory, and the time of each step.
    #[arg(long)]
    pub(super) explain: bool,
}

impl ExplainArgs {
    /// Says all that is to be known of an answer beside its sums: what it lacks, what looks wrong, and what it cost.
    pub(super) fn tell_all(self, completeness: Option<&Completeness>, warnings: &[String], explain: Option<&Explain>) {
        warn_incomplete(completeness);
        warn(warnings);
        self.tell(explain);
    }

    /// Says what an answer cost, where that was asked for.
    pub(super) fn tell(self, explain: Option<&Explain>) {
        if let Some(explain) = explain.filter(|_| self.explain) {
            let _ = std::io::stderr().write_all(text(explain).as_bytes());
        }
    }
}

/// Renders it as two lines.
fn text(of: &Explain) -> String {
    let steps: Vec<_> = of.steps.iter().map(|step| format!("{} {}", step.name, millis(step.duration))).collect();
    format!(
        "explain: {}; {} of {} blocks and {} of {} ranges in memory; {} requests, {} of {} objects; {} estimated{}\n\
         explain: {} in all: {}\n",
        counted(of.profiles, "profile"),
        of.blocks_cached,
        of.blocks,
        of.ranges_cached,
        of.ranges,
        of.requests,
        ByteSize(of.bytes),
        of.objects,
        ByteSize(of.estimate_bytes),
        if of.shares > 0 { format!("; {} shares done by siblings", of.shares) } else { String::new() },
        millis(of.duration),
        steps.join(", ")
    )
}

fn millis(length: Option<Duration>) -> String {
    let Duration { seconds, nanos } = length.unwrap_or_default();
    format!("{:.1} ms", seconds as f64 * 1e3 + f64::from(nanos) / 1e6)
}

#[cfg(test)]
mod tests {
    use afterglow_proto::v1::ExplainStep;

    use super::*;

    #[test]
    fn it_is_two_lines() {
        let step =
            |name: &str, nanos| ExplainStep { name: name.to_owned(), duration: Some(Duration { seconds: 0, nanos }) };
        let explain = Explain {
            profiles: 7,
            blocks: 3,
            blocks_cached: 2,
            ranges: 5,
            ranges_cached: 1,
            objects: 2,
            requests: 4,
            bytes: 2 << 20,
            estimate_bytes: 3 << 20,
            duration: Some(Duration { seconds: 1, nanos: 500_000 }),
            shares: 0,
            steps: vec![step("refresh", 250_000), step("sum", 12_000_000)],
        };
        assert_eq!(
            text(&explain),
            "explain: 7 profiles; 2 of 3 blocks and 1 of 5 ranges in memory; 4 requests, 2 MiB of 2 objects; 3 MiB estimated\n\
             explain: 1000.5 ms in all: refresh 0.2 ms, sum 12.0 ms\n"
        );
    }
}
