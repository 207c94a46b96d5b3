//! What is counted of questions: how many, how long, over how much; by question and outcome, never by a user's label.

use afterglow_service::{Failure, Kind};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

/// Buckets for durations: from an answer out of memory to the default deadline.
const DURATION_BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// The questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Lists profiles.
    Search,
    /// Gives one profile.
    GetProfile,
    /// Merges profiles.
    Merge,
    /// Does a share of a sibling's merge.
    Share,
    /// Holds two merges against each other.
    Diff,
    /// Sums over time.
    Series,
    /// Ranks functions.
    Top,
    /// Says all about a function.
    Function,
    /// Tells changes of functions from noise.
    Regressions,
    /// Says how shares of functions spread.
    Statistics,
    /// Says what is stored.
    Stats,
    /// Lists profile types.
    ProfileTypes,
    /// Lists services.
    Services,
    /// Lists label names.
    LabelNames,
    /// Lists a label's values.
    LabelValues,
    /// Lists the labels of series.
    LabelSets,
}

/// How a question ended, by who is to do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Ok,
    /// Answered, but not all stored data could be read.
    Partial,
    /// The request was wrong.
    Refused,
    NotFound,
    /// Over a limit or a budget.
    Exhausted,
    /// Over a limit of its tenant.
    Limited,
    Deadline,
    /// The store did not answer.
    Unavailable,
    /// What is stored is damaged, or there is a bug.
    Failed,
    /// Whoever asked went away.
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    question: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    question: &'static str,
    outcome: &'static str,
}

/// The metrics of questions; clones count into the same.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: Family<Ended, Counter>,
    durations: Family<Asked, Histogram, fn() -> Histogram>,
    profiles: Family<Asked, Counter>,
    bytes: Family<Asked, Counter>,
    blocks: Family<Asked, Counter>,
    /// Questions being answered.
    active: Gauge,
    /// Memory that admitted questions hold, and answers that their clients have not taken.
    pub(super) memory: Gauge,
    /// Memory that they may hold.
    memory_max: Gauge,
    /// Large questions that are answered.
    pub(super) large: Gauge,
    /// How many may be.
    large_max: Gauge,
    /// Large questions that wait for others to end.
    pub(super) large_waiting: Gauge,
    /// How many may wait.
    large_waiting_max: Gauge,
    /// Parts of blocks that were left out of an answer.
    pub(super) damaged: Counter,
    /// Shares of merges that siblings did.
    pub(super) shares_done: Counter,
    /// Shares of merges that no sibling did.
    pub(super) shares_returned: Counter,
}

impl Metrics {
    /// Makes the metrics and registers them: call it once for a registry.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            profiles: Family::default(),
            bytes: Family::default(),
            blocks: Family::default(),
            active: Gauge::default(),
            memory: Gauge::default(),
            memory_max: Gauge::default(),
            large: Gauge::default(),
            large_max: Gauge::default(),
            large_waiting: Gauge::default(),
            large_waiting_max: Gauge::default(),
            damaged: Counter::default(),
            shares_done: Counter::default(),
            shares_returned: Counter::default(),
        };
        let m = &metrics;
        let query = registry.sub_registry_with_prefix("afterglow_query");
        let help = "Questions by how they ended: ok, partial, refused, not_found, exhausted, limited (by a limit of their tenant), deadline, \
                    unavailable, failed, cancelled";
        query.register("requests", help, m.requests.clone());
        query.register_with_unit("duration", "Time from question to answer", Unit::Seconds, m.durations.clone());
        query.register("profiles", "Profiles that answers were made of", m.profiles.clone());
        let help = "Length of the profiles that answers were made of, as they were sent, before gzip";
        query.register_with_unit("profile", help, Unit::Bytes, m.bytes.clone());
        query.register("blocks", "Blocks that answers were made of", m.blocks.clone());
        query.register("active", "Questions being answered", m.active.clone());
        let help = "Questions about much that are answered: a few at once";
        query.register("large", help, m.large.clone());
        let help = "Questions about much that are answered at once: as many as there are cores, two at least";
        query.register("large_limit", help, m.large_max.clone());
        query.register(
            "large_waiting",
            "Questions about much that wait for one of these to end",
            m.large_waiting.clone(),
        );
        let help = "Questions about much that may wait; beyond, they are refused";
        query.register("large_waiting_limit", help, m.large_waiting_max.clone());
        query.register(
            "damaged",
            "Parts of blocks that answers had to leave out because they are damaged",
            m.damaged.clone(),
        );
        query.register("shares_done", "Shares of merges that siblings did", m.shares_done.clone());
        let help = "Shares of merges that no sibling did, so that they were done here";
        query.register("shares_returned", help, m.shares_returned.clone());
        query.register_with_unit(
            "memory",
            "Memory that admitted questions hold, and answers that their clients have not taken",
            Unit::Bytes,
            m.memory.clone(),
        );
        let help = "Memory that admitted questions may hold together (--query.memory)";
        query.register_with_unit("memory_limit", help, Unit::Bytes, m.memory_max.clone());
        // What begins at 1 is no rise to whoever watches. The others come with their first question: they are too many to show at once.
        let question = Question::Search.name();
        for outcome in [Outcome::Ok, Outcome::Partial, Outcome::Failed].map(Outcome::name) {
            drop(m.requests.get_or_create(&Ended { question, outcome }));
        }
        drop(m.durations.get_or_create(&Asked { question }));
        for counted in [&m.profiles, &m.bytes, &m.blocks] {
            drop(counted.get_or_create(&Asked { question }));
        }
        metrics
    }

    /// Shows what questions may take.
    pub(super) fn set_limits(&self, memory_bytes: u64, large: usize, large_waiting: usize) {
        let shown = [
            (&self.memory_max, memory_bytes),
            (&self.large_max, large as u64),
            (&self.large_waiting_max, large_waiting as u64),
        ];
        for (gauge, max) in shown {
            gauge.set(i64::try_from(max).unwrap_or(i64::MAX));
        }
    }

    /// Begins to count a question. Dropped before [`Asking::end`], it counts as cancelled.
    pub(super) fn begin(&self, question: Question) -> Asking {
        self.active.inc();
        Asking { metrics: self.clone(), question, began: Instant::now(), outcome: Outcome::Cancelled }
    }

    /// Counts what an answer was made of.
    pub(super) fn read(&self, question: Question, profiles: u64, bytes: u64, blocks: u64) {
        let asked = Asked { question: question.name() };
        self.profiles.get_or_create(&asked).inc_by(profiles);
        self.bytes.get_or_create(&asked).inc_by(bytes);
        self.blocks.get_or_create(&asked).inc_by(blocks);
    }
}

/// A question under way.
#[derive(Debug)]
pub(super) struct Asking {
    metrics: Metrics,
    question: Question,
    began: Instant,
    outcome: Outcome,
}

// === impl Asking ===

impl Asking {
    /// Ends it with an answer, `Ok` with whether that is partial, or a failure.
    pub(super) fn end(mut self, result: Result<bool, &Failure>) {
        self.outcome = match result {
            Ok(false) => Outcome::Ok,
            Ok(true) => Outcome::Partial,
            Err(failure) => Outcome::from(failure.kind()),
        };
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let (question, outcome) = (self.question.name(), self.outcome.name());
        self.metrics.active.dec();
        self.metrics.requests.get_or_create(&Ended { question, outcome }).inc();
        self.metrics.durations.get_or_create(&Asked { question }).observe(self.began.elapsed().as_secs_f64());
    }
}

// === impl Question, Outcome ===

impl Question {
    /// Returns the value of the label.
    fn name(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::GetProfile => "get_profile",
            Self::Merge => "merge",
            Self::Share => "share",
            Self::Diff => "diff",
            Self::Series => "series",
            Self::Top => "top",
            Self::Function => "function",
            Self::Regressions => "regressions",
            Self::Statistics => "statistics",
            Self::Stats => "stats",
            Self::ProfileTypes => "profile_types",
            Self::Services => "services",
            Self::LabelNames => "label_names",
            Self::LabelValues => "label_values",
            Self::LabelSets => "label_sets",
        }
    }
}

impl Outcome {
    /// Returns the value of the label.
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Partial => "partial",
            Self::Refused => "refused",
            Self::NotFound => "not_found",
            Self::Exhausted => "exhausted",
            Self::Limited => "limited",
            Self::Deadline => "deadline",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl From<Kind> for Outcome {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::NotFound => Self::NotFound,
            Kind::TooLarge | Kind::Exhausted => Self::Exhausted,
            Kind::Limited => Self::Limited,
            Kind::DeadlineExceeded => Self::Deadline,
            Kind::Unavailable | Kind::ShuttingDown => Self::Unavailable,
            Kind::Corrupt | Kind::Internal => Self::Failed,
            Kind::Invalid
            | Kind::AlreadyExists
            | Kind::Unimplemented
            | Kind::UnsupportedEncoding
            | Kind::MethodNotAllowed
            | Kind::Unauthenticated
            | Kind::PermissionDenied => Self::Refused,
        }
    }
}
