//! What tests of this crate, and of those above it, build on: stores that fail as told, and the rules every store must keep.
//!
//! [`faults::Faulty`] fails requests in the ways a cloud does; [`conformance::check`] shows that a store can carry Afterglow;
//! [`commits`] reads commits past all readers; [`s3`] runs real S3 stores on loopback; [`time::PausedClock`] is a wall clock that
//! advances with tokio's paused time. None of it is compiled into the programs: the feature `testing` brings it.

pub mod commits;
pub mod conformance;
pub mod faults;
pub mod odd;
pub mod readers;
pub mod s3;
pub mod segments;
pub mod time;
