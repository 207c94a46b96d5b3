//! A chunk of an input, unpacked, with the place of each profile in each of its columns.

use crate::block::chunk::Unpacked;
use crate::block::columns::{Head, Meta};
use crate::block::values::Form;
use crate::block::varint::{Cursor, Damage};

/// An unpacked chunk of columns whose profiles can be read in any order.
#[derive(Debug)]
pub(super) struct Split {
    unpacked: Unpacked,
    heads: Vec<Head>,
    /// For each profile where its part of each column ends: stacks, labels, meta, then the values of each type.
    ends: Vec<u32>,
    /// Where the stacks start, behind the heads.
    stacks_start: u32,
}

/// The columns before the values.
const STACKS: usize = 0;
const LABELS: usize = 1;
const META: usize = 2;
const VALUES: usize = 3;

impl Split {
    /// Finds where each profile lies. Every number of the columns is passed over once.
    ///
    /// # Errors
    /// The columns are not as long as the heads say.
    pub(super) fn new(unpacked: Unpacked) -> Result<Self, Damage> {
        let (heads, mut stacks) = unpacked.heads()?;
        let stacks_start = stacks.position() as u32;
        let (mut labels, mut meta) = (Cursor::new(&unpacked.labels), Cursor::new(&unpacked.meta));
        let mut values: Vec<Cursor<'_>> = unpacked.values.iter().map(|(values, _)| Cursor::new(values)).collect();
        let mut ends = Vec::with_capacity(heads.len() * (VALUES + values.len()));
        for head in &heads {
            stacks.skip(head.samples)?;
            if !unpacked.labels.is_empty() {
                labels.skip(head.samples)?;
            }
            meta.bytes()?;
            ends.extend([&stacks, &labels, &meta].map(|column| column.position() as u32));
            for (values, (_, form)) in values.iter_mut().zip(&unpacked.values) {
                if !matches!(form, Form::Multiple(_)) {
                    values.skip(head.samples)?;
                }
                ends.push(values.position() as u32);
            }
        }
        [&stacks, &labels, &meta].into_iter().chain(&values).try_for_each(Cursor::finish)?;
        Ok(Self { heads, ends, stacks_start, unpacked })
    }

    /// Returns the head of the profile at `position`, if there is one.
    pub(super) fn head(&self, position: u32) -> Option<Head> {
        self.heads.get(position as usize).copied()
    }

    fn part(&self, position: u32, column: usize) -> &[u8] {
        let (bytes, first) = match column {
            STACKS => (&self.unpacked.stacks, self.stacks_start),
            LABELS => (&self.unpacked.labels, 0),
            META => (&self.unpacked.meta, 0),
            values => (&self.unpacked.values[values - VALUES].0, 0),
        };
        let columns = VALUES + self.unpacked.values.len();
        let at = position as usize * columns + column;
        let start = if position == 0 { first } else { self.ends[at - columns] };
        &bytes[start as usize..self.ends[at] as usize]
    }

    /// Returns the stack ids of a profile.
    pub(super) fn stacks(&self, position: u32) -> Cursor<'_> {
        Cursor::new(self.part(position, STACKS))
    }

    /// Returns the label sets of a profile; nothing where no sample of the chunk has labels.
    pub(super) fn labels(&self, position: u32) -> Cursor<'_> {
        Cursor::new(self.part(position, LABELS))
    }

    /// Reads the meta of a profile.
    pub(super) fn meta(&self, position: u32) -> Result<Meta, Damage> {
        let mut from = Cursor::new(Cursor::new(self.part(position, META)).bytes()?);
        let meta = Meta::read(&mut from, self.heads[position as usize].samples)?;
        from.finish().map(|()| meta)
    }

    /// Returns the values of each type of a profile, and how they are said.
    pub(super) fn values(&self, position: u32) -> impl Iterator<Item = (&[u8], Form)> + Clone {
        let types = self.unpacked.values.iter().zip(VALUES..);
        types.map(move |((_, form), column)| (self.part(position, column), *form))
    }
}
