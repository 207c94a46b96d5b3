//! From the ids of a file to indices into the tables.
//!
//! Samples refer to locations, locations to mappings, lines to functions: by any 64-bit id, and mostly before the entity itself has
//! come. So references are kept as ids while reading and resolved at the end. Ids are nearly always 1, 2, 3 … in file order, which
//! costs nothing to resolve; other small ids take a table; sparse ones a sorted list, which crafted ids cannot make slow as they
//! could a hash map.

use crate::error::Error;
use crate::model::NONE;

/// The kinds of entities that have ids.
#[derive(Clone, Copy)]
pub(super) enum Entity {
    Mapping,
    Location,
    Function,
}

impl Entity {
    /// Returns its name in error texts.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mapping => "mapping",
            Self::Location => "location",
            Self::Function => "function",
        }
    }
}

/// References as they were read: the slot of each holds its id, or [`NONE`] where the id does not fit there.
#[derive(Default)]
pub(super) struct References {
    /// The ids that did not fit, in the order of their slots.
    large: Vec<u64>,
}

impl References {
    /// Returns what to keep in the slot of a reference to `id`.
    #[inline(always)]
    pub(super) fn slot(&mut self, id: u64) -> u32 {
        if id < u64::from(NONE) { id as u32 } else { self.large_slot(id) }
    }

    #[cold]
    fn large_slot(&mut self, id: u64) -> u32 {
        self.large.push(id);
        NONE
    }

    /// Replaces the id in each of `slots` by the index of its entity, or by [`NONE`] for id 0 if `none_allowed`.
    ///
    /// # Errors
    /// The number of the first slot whose id `index` does not hold, and the id.
    pub(super) fn resolve<'s>(
        &self,
        slots: impl Iterator<Item = &'s mut u32>,
        index: &Index,
        none_allowed: bool,
    ) -> Result<(), (usize, u64)> {
        let mut large = self.large.iter();
        for (i, slot) in slots.enumerate() {
            let id = match *slot {
                NONE => *large.next().expect("each slot without an id has one in the list"),
                id => u64::from(id),
            };
            *slot = match index.get(id) {
                Some(at) => at,
                None if id == 0 && none_allowed => NONE,
                None => return Err((i, id)),
            };
        }
        Ok(())
    }

    /// As [`References::resolve`], for as many slots as the stacks of all samples have; id 0 is not allowed.
    pub(super) fn resolve_all(&self, slots: &mut [u32], index: &Index) -> Result<(), (usize, u64)> {
        // With ids 1, 2, 3 … all is a subtraction, which takes 0 to the largest number: one look at the maximum says whether every
        // id is defined. The loop is without branches, for vectors.
        if let Index::Dense(len) = index {
            let mut max = 0;
            for slot in slots.iter_mut() {
                *slot = slot.wrapping_sub(1);
                max = max.max(*slot);
            }
            if max < *len {
                return Ok(());
            }
            slots.iter_mut().for_each(|slot| *slot = slot.wrapping_add(1));
        }
        self.resolve(slots.iter_mut(), index, false)
    }
}

/// Where the entity with an id stands in its table.
pub(super) enum Index {
    /// The ids are 1, 2, 3 … up to this one.
    Dense(u32),
    /// The position by id, [`NONE`] where there is no such id.
    Table(Vec<u32>),
    /// Id and position, sorted by id.
    Sorted(Vec<(u64, u32)>),
}

/// A table may have this many times as many places as entities: beyond, sorting takes less memory.
const TABLE_SPARSENESS_MAX: usize = 4;

impl Index {
    /// Creates the index of the entities that have these ids, in this order.
    ///
    /// # Errors
    /// An id is 0 or comes twice.
    pub(super) fn new(entity: Entity, ids: impl ExactSizeIterator<Item = u64> + Clone) -> Result<Self, Box<Error>> {
        let len = ids.len();
        let (mut dense, mut max) = (true, 0);
        for (i, id) in ids.clone().enumerate() {
            if id == 0 {
                let place = format!("{}[{i}]", entity.name());
                return Err(Box::new(Error::IdZero { place, entity: entity.name() }));
            }
            dense &= id == i as u64 + 1;
            max = id.max(max);
        }
        if dense {
            return Ok(Self::Dense(len as u32));
        }
        let duplicate = |i: u32, id: u64| {
            let place = format!("{}[{i}]", entity.name());
            Box::new(Error::IdDuplicate { place, entity: entity.name(), id })
        };
        if max < (TABLE_SPARSENESS_MAX * len) as u64 {
            let mut table = vec![NONE; max as usize + 1];
            for (i, id) in ids.enumerate() {
                if table[id as usize] != NONE {
                    return Err(duplicate(i as u32, id));
                }
                table[id as usize] = i as u32;
            }
            return Ok(Self::Table(table));
        }
        let mut sorted: Vec<_> = ids.enumerate().map(|(i, id)| (id, i as u32)).collect();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(duplicate(pair[1].1, pair[1].0)),
            None => Ok(Self::Sorted(sorted)),
        }
    }

    /// Returns the position of the entity with this id.
    #[inline(always)]
    fn get(&self, id: u64) -> Option<u32> {
        match self {
            Self::Dense(len) => (id.wrapping_sub(1) < u64::from(*len)).then(|| id as u32 - 1),
            Self::Table(table) => table.get(usize::try_from(id).ok()?).copied().filter(|&at| at != NONE),
            Self::Sorted(sorted) => sorted.binary_search_by_key(&id, |entry| entry.0).ok().map(|i| sorted[i].1),
        }
    }
}
