//! What protects the data, and who takes part.

/// The most segments of a scenario.
pub(super) const SEGMENTS_MAX: usize = 3;
/// The most parts of a scenario that commit.
pub(super) const PARTS_MAX: usize = 5;

/// The rules of the protocol. All are on in [`Rules::default`]; a test switches one off to see that it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What a commit removed is deleted only when the commit is older than the grace.
    pub grace: bool,
    /// Segments named before the boundary are not seen and cannot be compacted. Off: what a commit removed is forgotten after a day
    /// all the same.
    pub boundary: bool,
    /// Who lost a race takes an input below the boundary for gone.
    pub boundary_of_inputs: bool,
    /// The boundary stays before every segment that is listed and that no commit removed.
    pub boundary_spares_listed: bool,
    /// A reader lists first and reads the commits then.
    pub list_first: bool,
    /// A number that is taken is compared by its nonce: it may be one's own commit, whose answer was lost.
    pub nonce: bool,
    /// Who lost a race looks whether its inputs are still live and its ids still its own.
    pub revalidation: bool,
    /// An output leaves out ids that other live blocks hold.
    pub dedupe: bool,
    /// A commit whose outcome is unknown leaves its block where it is.
    pub unknown_keeps: bool,
    /// A block that nobody names is deleted after a commit that removed it, as all else; off: by its age alone.
    pub garbage_by_commit: bool,
    /// Who lost a race takes its own block for gone that was a day old when the newest commit was made: it may have been garbage.
    pub age_of_output: bool,
    /// Commits are never deleted. Off: once they are older than the grace, for a snapshot has what they say.
    pub commits_kept: bool,
    /// What a writer does whose PUT took long.
    pub slow_ack: SlowAck,
}

/// What a writer does whose segment was named more than a day before the store's answer (in truth: more than a minute).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowAck {
    /// It says that the outcome is unknown.
    Never,
    /// It reads the boundary and acknowledges where that has not passed.
    AfterBoundary,
    /// It acknowledges.
    Always,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            grace: true,
            boundary: true,
            boundary_of_inputs: true,
            boundary_spares_listed: true,
            list_first: true,
            nonce: true,
            revalidation: true,
            dedupe: true,
            unknown_keeps: true,
            garbage_by_commit: true,
            age_of_output: true,
            commits_kept: true,
            slow_ack: SlowAck::Never,
        }
    }
}

/// A process that makes one commit, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Merges segments and blocks into a block.
    Compact,
    /// Removes a block whose time is over.
    Retain,
    /// Moves the boundary.
    Boundary,
    /// Finds a block that nobody names.
    Garbage,
}

/// Who takes part, and how often time passes. One reader and any number of deletions are always there.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The profiles in each segment, as a set of bits; each segment has a writer of its own.
    pub segments: Vec<u8>,
    /// How often the PUT of each segment is sent: a hedge or a retry makes it two.
    pub puts: u8,
    /// Who commits.
    pub parts: Vec<Part>,
    /// How often the grace passes, at most.
    pub graces: u8,
    /// How often a day passes, at most.
    pub days: u8,
    /// The rules.
    pub rules: Rules,
}

impl Scenario {
    /// Makes a scenario of two writers who send the same profile (the second for the first one's answer was lost), each PUT twice.
    pub fn retry(parts: &[Part]) -> Self {
        Self { segments: vec![1, 1], puts: 2, parts: parts.to_vec(), graces: 1, days: 1, rules: Rules::default() }
    }

    /// Makes a scenario of two writers who send different profiles, each PUT twice.
    pub fn distinct(parts: &[Part]) -> Self {
        Self { segments: vec![1, 2], ..Self::retry(parts) }
    }
}
