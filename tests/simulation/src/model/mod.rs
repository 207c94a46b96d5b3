//! The protocol of commits and collection as a model, all of whose states are visited.
//!
//! ```text
//! rules    what protects the data, each rule to be switched off; and the scenario: who takes part, how often time passes
//! state    the store and the processes at one instant, in a few dozen bytes; what a commit's number says is live
//! step     every next step: of a process, of a request that lands now, of time
//! check    what must hold in every state
//! search   breadth first over all states; a violation comes with the shortest way to it
//! ```
//!
//! What the store does to requests: a PUT lands at any later time, twice, or never, whether its sender lives or not; so does a
//! create-if-absent, once, and its answer may be lost. A process may stop for ever between any two of its steps, or sleep as long as
//! it likes: no step has to follow another. So a crash needs no step of its own; a process that starts anew is another one.
//!
//! Time is two events. *Grace*: everything that there is, is now older than the grace, and questions asked before are over. *Day*:
//! everything is now older than 24 hours. Names of segments carry the number of days that have passed, which is all that the
//! boundary compares.

mod check;
pub mod rules;
mod search;
mod state;
mod step;

pub use check::Wrong;
pub use rules::{Part, Rules, Scenario, SlowAck};
pub use search::{Found, search, walk};
pub use step::Step;

#[cfg(test)]
mod real;
#[cfg(test)]
mod tests;
