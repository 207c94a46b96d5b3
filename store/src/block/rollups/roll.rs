//! Makes roll-ups of the profiles of a dataset, in whichever order these come.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{NANOS_PER_SECOND, Rollup, Rollups};
use crate::block::chunk::{self, Profiles, Stored, Unpacked};
use crate::block::columns::{self, Head, Samples};
use crate::block::frame::Packer;
use crate::block::rows::Row;
use crate::block::sums::{Group, Headers, Summed, check};
use crate::block::symbols::Symbols;
use crate::block::toc::Chunk;
use crate::block::values::{Form, Sets};
use crate::block::varint::{self, Damage, Delta};

/// A step gets roll-ups where its profiles have so many times the samples of their sums. With less there is little to spare, and the
/// sums would take a good part of what the profiles take.
const SAMPLES_PER_SUM_MIN: u64 = 16;

/// How many bytes of memory the sums of a dataset may take: a day of steps of a large service.
pub(crate) const MEMORY_MAX: usize = 32 << 20;

/// Adds up the profiles of a dataset, step by step.
#[derive(Debug)]
pub(crate) struct Roller {
    step_nanos: i64,
    memory_max: usize,
    memory: usize,
    steps: BTreeMap<i64, Step>,
}

/// The sums of a step.
#[derive(Debug, Default)]
struct Step {
    headers: Headers,
    groups: Vec<Group>,
    /// How many samples its profiles have.
    samples: u64,
    memory: usize,
    /// Whether it gets no roll-ups.
    is_given_up: bool,
}

/// What the profiles of a step with one header add up to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sum {
    /// The smallest number of a header that is theirs.
    pub(super) header: u32,
    types: usize,
    summed: Summed,
}

/// The roll-ups of a dataset, as they wait for their place in a block.
#[derive(Debug, Default)]
pub(crate) struct Rolled {
    step_nanos: i64,
    /// The chunks one after the other; the offsets of the list count from their start.
    pub(crate) bytes: Vec<u8>,
    list: Vec<Rollup>,
}

// === impl Rolled ===

impl Rolled {
    /// Returns whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns their listing, when they lie in this section, which starts at `start`.
    pub(crate) fn placed(self, section: u32, start: u64) -> Rollups {
        let Self { step_nanos, mut list, .. } = self;
        list.iter_mut().for_each(|rollup| rollup.chunk.shift(start));
        Rollups { section, step_nanos, list }
    }
}

// === impl Roller ===

impl Roller {
    /// Starts with no profiles. Steps are whole seconds, at least one. Where sums come to take more memory than `memory_max` bytes, the
    /// largest steps get no roll-ups.
    pub(crate) fn new(step: Duration, memory_max: usize) -> Self {
        let seconds = i64::try_from(step.as_secs()).unwrap_or(i64::MAX).clamp(1, i64::MAX / NANOS_PER_SECOND);
        Self { step_nanos: seconds * NANOS_PER_SECOND, memory_max, memory: 0, steps: BTreeMap::new() }
    }

    /// Starts with no profiles, for steps as long as those of `rollups`, whatever memory it takes.
    pub(super) fn like(rollups: &Rollups) -> Self {
        Self { step_nanos: rollups.step_nanos, memory_max: usize::MAX, memory: 0, steps: BTreeMap::new() }
    }

    /// Adds the samples of a profile.
    ///
    /// # Errors
    /// They refer to what is not in the tables.
    pub(crate) fn add(&mut self, row: &Row, head: &Head, samples: &Samples, symbols: &Symbols) -> Result<(), Damage> {
        let step = self.steps.entry(row.time_nanos.div_euclid(self.step_nanos)).or_default();
        if step.is_given_up {
            return Ok(());
        }
        self.memory -= step.memory;
        if !step.add(row, head, samples, symbols)? {
            step.give_up();
        }
        self.memory += step.memory;
        while self.memory > self.memory_max {
            let largest = self.steps.values_mut().max_by_key(|step| step.memory);
            let largest = largest.expect("there are steps where they take memory");
            self.memory -= largest.memory;
            largest.give_up();
        }
        Ok(())
    }

    /// Returns the sums of each step that has any, with the number of samples that were summed.
    pub(super) fn sums(self) -> impl Iterator<Item = (i64, u64, Vec<Sum>)> {
        let steps = self.steps.into_iter().filter(|(_, step)| !step.is_given_up);
        steps.map(|(number, step)| {
            let Step { headers, groups, samples, .. } = step;
            let sum = |(at, group): (usize, Group)| {
                let types = group.types;
                Sum { header: headers.first(at), types, summed: group.finish() }
            };
            let mut sums: Vec<Sum> = groups.into_iter().enumerate().map(sum).collect();
            sums.sort_unstable_by_key(|sum| sum.header);
            (number, samples, sums)
        })
    }

    /// Returns the roll-ups, where they are worth their bytes; `sets` are the label sets of the service.
    ///
    /// # Errors
    /// The sums contradict the tables.
    pub(crate) fn finish(self, sets: Sets<'_>, packer: &mut Packer) -> Result<Rolled, Damage> {
        let mut rolled = Rolled { step_nanos: self.step_nanos, ..Rolled::default() };
        for (step, samples, sums) in self.sums() {
            let summed: usize = sums.iter().map(|sum| sum.summed.keys.len()).sum();
            if samples < summed as u64 * SAMPLES_PER_SUM_MIN {
                continue;
            }
            for sum in sums {
                let start_nanos = step.wrapping_mul(rolled.step_nanos);
                let chunk = sum.write(start_nanos, sets, packer, &mut rolled.bytes)?;
                rolled.list.push(Rollup { step, rows: sum.summed.profiles as u32, chunk });
            }
        }
        Ok(rolled)
    }
}

// === impl Step ===

impl Step {
    /// Adds the samples of a profile; returns false where the step cannot be summed.
    fn add(&mut self, row: &Row, head: &Head, samples: &Samples, symbols: &Symbols) -> Result<bool, Damage> {
        if samples.values.iter().flatten().any(|&value| value < 0) {
            return Ok(false);
        }
        check(samples, symbols)?;
        let at = self.headers.place(head.header, symbols)?;
        if at == self.groups.len() {
            self.groups.push(Group::new(self.headers.get(at).sample_types.len(), None, 0));
        }
        let group = &mut self.groups[at];
        if samples.values.len() != group.types {
            return Err(Damage("has another number of values than sample types"));
        }
        group.grow(symbols.leaves.len());
        let time = head.time_delta.wrapping_add(row.time_nanos);
        let duration = head.duration_delta.wrapping_add(row.duration_nanos);
        self.samples += samples.stacks.len() as u64;
        let fits = group.add(samples, (time, duration), 1);
        self.memory = self.groups.iter().map(Group::memory).sum();
        Ok(fits)
    }

    fn give_up(&mut self) {
        *self = Self { is_given_up: true, ..Self::default() };
    }
}

// === impl Sum ===

impl Sum {
    /// Appends the sum as a chunk of one profile, whose times are relative to `start_nanos`.
    fn write(&self, start_nanos: i64, sets: Sets<'_>, packer: &mut Packer, out: &mut Vec<u8>) -> Result<Chunk, Damage> {
        let Summed { time_nanos, duration_nanos, keys, values, .. } = &self.summed;
        let head = Head {
            samples: keys.len(),
            header: self.header,
            time_delta: time_nanos.wrapping_sub(start_nanos),
            duration_delta: *duration_nanos,
        };
        let (mut stacks, mut delta, mut labels) = (Vec::new(), Delta::default(), Vec::new());
        keys.iter().for_each(|&(stack, _)| delta.put(&mut stacks, stack.into()));
        if keys.iter().any(|&(_, set)| set != 0) {
            keys.iter().for_each(|&(_, set)| varint::put(&mut labels, set.into()));
        }
        let column = |t: usize| values.iter().skip(t).step_by(self.types).copied();
        let said: Vec<(Vec<u8>, Form)> = (0..self.types)
            .map(|t| match (0..t).find_map(|of| columns::multiple(column(of), column(t), of)) {
                Some(multiple) => (Vec::new(), Form::Multiple(multiple)),
                None => {
                    let mut plain = Vec::new();
                    column(t).for_each(|value| varint::put(&mut plain, value as u64));
                    (plain, Form::Plain)
                }
            })
            .collect();
        let said = said.iter().map(|(bytes, form)| (&bytes[..], *form));
        chunk::write(&[Stored::columns(head, [&stacks, &labels, &[]], said)], sets, packer, out)
    }

    /// Reads the sum of `profiles` from its chunk; times are relative to `row`.
    ///
    /// # Errors
    /// It is damaged.
    pub(super) fn read(
        chunk: &Unpacked,
        row: &Row,
        profiles: u32,
        symbols: &Symbols,
        numbers: &[i64],
    ) -> Result<Self, Damage> {
        let mut samples = Samples::default();
        let head = Profiles::new(chunk, numbers)?.read(0, &mut samples)?;
        check(&samples, symbols)?;
        let types = samples.values.len();
        let summed = Summed {
            profiles: profiles as usize,
            time_nanos: head.time_delta.wrapping_add(row.time_nanos),
            duration_nanos: head.duration_delta.wrapping_add(row.duration_nanos),
            keys: (0..).zip(&samples.stacks).map(|(i, &stack)| (stack, samples.set(i))).collect(),
            values: (0..head.samples).flat_map(|i| samples.values.iter().map(move |column| column[i])).collect(),
        };
        Ok(Self { header: head.header, types, summed })
    }
}
