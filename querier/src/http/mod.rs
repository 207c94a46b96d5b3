//! The questions over HTTP: routes and handlers in [`api`], those of merges and diffs in [`merges`], of questions that sum in [`sums`];
//! parameters of URLs in [`params`]; what Grafana asks as it asks Pyroscope in [`pyroscope`]; the web UI in [`web`], and what `/` says to
//! tools in [`help`].

mod api;
mod help;
mod merges;
mod params;
mod pyroscope;
mod sums;
mod web;

pub(crate) use api::router;
pub(crate) use pyroscope::router as pyroscope;
pub(crate) use web::router as pages;
