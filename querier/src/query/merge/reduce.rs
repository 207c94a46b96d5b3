//! Which sample types have to be read for an answer: all for a pprof, mostly one for whatever shows one.
//!
//! An answer of one sample type says little of the others, but a merge of all knows more: which are left out, which units win, and
//! how many sums do not fit 64 bits. One alone is read where rows tell that there is nothing of the kind: the profiles have equal sample
//! types, and sums that fit. What profiles show by default lies beside their samples, so it is found out on the way; where they differ,
//! [`gather`](super::gather) reads all after all.

use afterglow_store::block::SampleTypes;
use afterglow_store::catalog::Match;

use super::super::shown::header;

/// Returns which sample types an answer that shows the one called `asked`, or else the default, has to be made of.
pub(super) fn sample_types<'a>(
    mut matches: impl Iterator<Item = &'a Match> + Clone,
    asked: Option<&str>,
) -> SampleTypes {
    let all = matches.clone();
    let Some(list) = matches.next().map(Match::sample_types).filter(|list| list.len() > 1) else {
        return SampleTypes::All;
    };
    let mut sums = vec![0i128; list.len()];
    for found in all {
        // Mostly it is the very list of the same dataset, so the comparison is short.
        if !std::ptr::eq(found.sample_types(), list) && found.sample_types() != list {
            return SampleTypes::All;
        }
        for (sum, &total) in sums.iter_mut().zip(&found.row().totals) {
            *sum += i128::from(total.unsigned_abs());
        }
    }
    // Values of a profile have one sign as a rule, so no sum of some of them is larger. Totals stand at the largest where they saturate.
    if sums.iter().any(|&sum| sum >= i64::MAX.into()) {
        return SampleTypes::All;
    }
    match asked {
        None => SampleTypes::Default,
        // What there is not is refused by the names that the merge of all has.
        asked => header(list).sample_type_named(asked).map_or(SampleTypes::All, SampleTypes::One),
    }
}
