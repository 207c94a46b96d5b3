//! Memory that is zero because it was written so.
//!
//! `vec![0; n]` asks the allocator for zeroed memory. From some pages on jemalloc, which all our servers use, answers that by giving pages it
//! has back to the kernel and taking new ones (`ehooks_default_zero_impl` in its src/ehooks.c): each faults when it is touched, twice
//! where it is read first, and the second time all other cores are interrupted. Where memory is needed for some milliseconds at a time and again
//! and again, to write zeros costs less: of a ranking over a thousand services it was a tenth of the CPU time.

use std::hint::black_box;

/// Returns `count` of `T`'s defaults, each written.
pub fn written<T: Clone + Default>(count: usize) -> Vec<T> {
    filled(count, T::default())
}

/// Returns `value` so many times, each written.
pub fn filled<T: Clone>(count: usize, value: T) -> Vec<T> {
    // A compiler that sees memory taken and then filled with zeros asks for zeroed memory.
    let mut all = black_box(Vec::with_capacity(count));
    all.resize(count, value);
    all
}
