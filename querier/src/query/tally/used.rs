//! What each cell used, function by function: the sums that comparisons of shares are made of.

use std::collections::HashMap;

use afterglow_profile::functions::{Summed, Sums};

use super::Tally;

/// What a function in a cell takes in memory, in bytes, about.
const VALUE_BYTES: usize = 32;

/// What each cell used, function by function.
#[derive(Debug, Default)]
pub(in super::super) struct Used {
    numbers: HashMap<String, u32>,
    /// The name and the file of each function, by its number.
    pub(in super::super) names: Vec<(String, String)>,
    name_bytes: usize,
    pub(in super::super) cells: Vec<UsedCell>,
}

/// What a cell used.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct UsedCell {
    /// All of it.
    pub(in super::super) total: f64,
    /// By the numbers of the functions.
    pub(in super::super) values: HashMap<u32, Value>,
}

/// What a function used in a cell: itself, and with all it called.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Value {
    pub(in super::super) own: f64,
    pub(in super::super) total: f64,
}

impl Used {
    /// Makes an empty one of so many cells.
    pub(in super::super) fn new(cells: usize) -> Self {
        Self { cells: vec![UsedCell::default(); cells], ..Self::default() }
    }

    fn number(&mut self, name: &str, file: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            // Where several files have a function of this name, it is shown with the first of them, whichever was met first.
            let (_, known) = &mut self.names[number as usize];
            if file < &**known {
                file.clone_into(known);
            }
            return number;
        }
        let number = u32::try_from(self.names.len()).expect("a name a function, which are counted in u32");
        self.numbers.insert(name.to_owned(), number);
        self.names.push((name.to_owned(), file.to_owned()));
        self.name_bytes += 2 * name.len() + file.len();
        number
    }

    /// Numbers the functions in the order of their names. Until then their order is that in which they were met, which depends on how the
    /// profiles lie in blocks, and so would the last digits of what is summed in it.
    pub(in super::super) fn in_order(mut self) -> Self {
        let mut order: Vec<usize> = (0..self.names.len()).collect();
        order.sort_unstable_by(|&a, &b| self.names[a].cmp(&self.names[b]));
        let mut place = vec![0; order.len()];
        (0u32..).zip(&order).for_each(|(at, &number)| place[number] = at);
        self.names = order.iter().map(|&number| std::mem::take(&mut self.names[number])).collect();
        for cell in &mut self.cells {
            let values = std::mem::take(&mut cell.values);
            cell.values = values.into_iter().map(|(number, value)| (place[number as usize], value)).collect();
        }
        self.numbers.values_mut().for_each(|number| *number = place[*number as usize]);
        self
    }
}

impl Tally for Used {
    type Subtotal = Summed;

    fn add(&mut self, subtotal: &Summed, groups: &[u32]) {
        let numbers: Vec<u32> = subtotal.names().map(|(name, file)| self.number(name, file)).collect();
        for (group, total, sums) in subtotal.parts() {
            let cell = &mut self.cells[groups[group as usize] as usize];
            cell.total += total as f64;
            for (number, Sums { self_value, total }) in sums {
                let value = cell.values.entry(numbers[number as usize]).or_default();
                value.own += self_value as f64;
                value.total += total as f64;
            }
        }
    }

    fn memory(&self) -> usize {
        self.name_bytes
            + self.cells.iter().map(|cell| size_of::<UsedCell>() + cell.values.len() * VALUE_BYTES).sum::<usize>()
    }
}
