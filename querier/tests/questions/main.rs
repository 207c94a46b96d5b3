//! The querier's questions from outside: a real server on a real port, over a bucket in memory that real segments were put into.

mod abandoned;
mod compaction;
mod crowd;
mod diff;
mod edge;
mod explain;
mod fetch;
mod functions;
mod labels;
mod merge;
mod pyroscope;
mod reduce;
mod refusals;
mod regressions;
mod search;
mod series;
mod statistics;
mod stats;
mod trouble;
mod unread;
mod world;
