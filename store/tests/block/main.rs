//! The block from outside: what is written comes back, from real and from odd profiles, whole and damaged.

mod aggregate;
mod damage;
mod filters;
mod merge;
mod odd;
mod real;
mod rollups;
mod rows;
mod samples;
mod versions;
