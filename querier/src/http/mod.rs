//! The questions over HTTP: routes and handlers in [`api`], parameters of URLs in [`params`], the page at `/` in [`help`].

mod api;
mod help;
mod params;

pub(crate) use api::router;
