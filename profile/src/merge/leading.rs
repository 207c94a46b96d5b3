//! What only one profile can decide: the order of the sample types, the one that is shown by default, which frames are dropped, the
//! documentation link. The first profile does that has something to say of it.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::RandomState;

use super::header::{Measure, measures};
use crate::model::Profile;

/// Which profile is the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// The one that was added first, as in pprof.
    #[default]
    Added,
    /// The earliest. Those without a time come last; of those of one time it is the one whose words come first.
    Time,
}

/// The leading profiles so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Leading {
    order: Order,
    added: i64,
    /// What there is for each distinct list of sample types.
    lists: HashMap<Vec<Measure>, List, RandomState>,
    /// `drop_frames` and `keep_frames`.
    frames: First<[Vec<u8>; 2]>,
    doc_url: First<Vec<u8>>,
    memory: usize,
}

/// What the profiles with one list of sample types say of the one that is shown by default.
#[derive(Clone, Debug, Default)]
struct List {
    /// What the first of them says, be it nothing.
    first: First<Vec<u8>>,
    /// The first that says something.
    named: First<Vec<u8>>,
}

/// What the first profile says, and its place in the order.
#[derive(Clone, Debug)]
struct First<T>(Option<(i64, T)>);

/// What was decided about sample types.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Where each column of the result lies among those given; none where they stay as they are.
    pub(super) columns: Option<Vec<usize>>,
    /// The name of the sample type that is shown by default, which may be empty.
    pub(super) default_sample_type: Vec<u8>,
}

// === impl First ===

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Ord> First<T> {
    /// Takes what the profile at a place says, if that comes before what there is.
    fn offer(&mut self, at: i64, said: impl FnOnce() -> T) {
        let order = self.0.as_ref().map_or(Ordering::Less, |(known, _)| at.cmp(known));
        if order.is_gt() {
            return;
        }
        let said = said();
        if order.is_lt() || self.0.as_ref().is_some_and(|(_, known)| said < *known) {
            self.0 = Some((at, said));
        }
    }

    fn get(&self) -> Option<&T> {
        self.0.as_ref().map(|(_, said)| said)
    }
}

// === impl Leading ===

impl Leading {
    pub(super) fn new(order: Order) -> Self {
        Self { order, ..Self::default() }
    }

    /// Notes what a profile says.
    pub(super) fn add(&mut self, profile: &Profile<'_>) {
        let at = match self.order {
            Order::Added => self.added,
            Order::Time if profile.time_nanos == 0 => i64::MAX,
            Order::Time => profile.time_nanos,
        };
        self.added += 1;
        let text = |index| profile.string(index).to_vec();
        let types = measures(profile);
        let bytes = types.iter().map(Measure::memory).sum::<usize>();
        let list = self.lists.entry(types).or_insert_with(|| {
            self.memory += bytes + size_of::<List>();
            List::default()
        });
        list.first.offer(at, || text(profile.default_sample_type));
        if !profile.string(profile.default_sample_type).is_empty() {
            list.named.offer(at, || text(profile.default_sample_type));
        }
        self.frames.offer(at, || [text(profile.drop_frames), text(profile.keep_frames)]);
        if !profile.string(profile.doc_url).is_empty() {
            self.doc_url.offer(at, || text(profile.doc_url));
        }
    }

    /// Returns `drop_frames` and `keep_frames`.
    pub(super) fn frames(&self) -> [&[u8]; 2] {
        self.frames.get().map_or([b"", b""], |[drop, keep]| [drop, keep])
    }

    pub(super) fn doc_url(&self) -> &[u8] {
        self.doc_url.get().map_or(b"", |url| url)
    }

    /// Decides the order of the sample types that all have in common, and which of them is shown by default.
    ///
    /// A profile that has to give up its order or a type shows one of the types that remain: its own or the first, as in pprof
    /// (google/pprof, profile/merge.go, `compatibilizeSampleTypes`).
    pub(super) fn settle(&self, in_common: &[Measure]) -> Settled {
        let first = |list: &List| list.first.0.as_ref().map_or(i64::MAX, |(at, _)| *at);
        let lead = self.lists.iter().min_by_key(|(types, list)| (first(list), *types));
        let Some((lead, _)) = lead else { return Settled::default() };
        let are = |types: &[Measure], columns: &[usize]| {
            types.len() == columns.len()
                && types.iter().zip(columns).all(|(t, &column)| t.kind == in_common[column].kind)
        };
        let as_given: Vec<usize> = (0..in_common.len()).collect();
        let columns: Vec<usize> = if are(lead, &as_given) {
            as_given.clone()
        } else {
            let place = |measure: &Measure| in_common.iter().position(|common| common.kind == measure.kind);
            lead.iter().filter_map(place).collect()
        };
        let remains = |kind: &[u8]| in_common.iter().any(|common| common.kind == kind);
        let shown = |(types, list): (&Vec<Measure>, &List)| {
            if are(types, &columns) {
                return list.named.0.clone();
            }
            let (at, own) = list.first.0.as_ref()?;
            let shown = if remains(own) { own } else { &in_common[*columns.first()?].kind };
            Some((*at, shown.clone()))
        };
        let default_sample_type = self.lists.iter().filter_map(shown).min().map(|(_, kind)| kind).unwrap_or_default();
        Settled { columns: (columns != as_given).then_some(columns), default_sample_type }
    }

    /// Returns how many bytes of memory it holds, about.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }
}
