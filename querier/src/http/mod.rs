//! The questions over HTTP: routes and handlers in [`api`], those of questions that sum in [`sums`], parameters of URLs in [`params`],
//! the page at `/` in [`help`].

mod api;
mod help;
mod params;
mod sums;

pub(crate) use api::router;
