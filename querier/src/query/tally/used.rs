//! What each cell used, function by function: the sums that comparisons of shares are made of.

use std::collections::HashMap;

use afterglow_profile::functions::{Summed, Sums, note_file};

use super::Tally;

/// What a function in a cell takes in memory, in bytes, about.
const VALUE_BYTES: usize = 32;

/// By which part of itself a sum of large numbers may be off, which has 53 bits.
const ROUNDING: f64 = 1e-9;

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

/// Whether what functions used in a cell are parts of a whole, as shares are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Whole {
    /// They are.
    Parts,
    /// Nothing was used.
    Nothing,
    /// Something counts as less than nothing, as in a diff or where what was freed is taken off: the rest then is more than all, and a share
    /// may have any size and sign.
    Negative,
}

/// What a function used in a cell: itself, and with all it called.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Value {
    pub(in super::super) own: f64,
    pub(in super::super) total: f64,
}

impl UsedCell {
    /// Says whether there are shares of it. What cancels out within a function is not seen.
    pub(in super::super) fn whole(&self) -> Whole {
        let most = self.total * (1.0 + ROUNDING);
        let is_part = |value: f64| (0.0..=most).contains(&value);
        if self.total < 0.0 || !self.values.values().all(|value| is_part(value.own) && is_part(value.total)) {
            Whole::Negative
        } else if self.total == 0.0 {
            Whole::Nothing
        } else {
            Whole::Parts
        }
    }
}

impl Used {
    /// Makes an empty one of so many cells.
    pub(in super::super) fn new(cells: usize) -> Self {
        Self { cells: vec![UsedCell::default(); cells], ..Self::default() }
    }

    fn number(&mut self, name: &str, file: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            note_file(&mut self.names[number as usize].1, file);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_has_nothing_negative() {
        let cell = |total, values: &[(f64, f64)]| UsedCell {
            total,
            values: (0..).zip(values.iter().map(|&(own, total)| Value { own, total })).collect(),
        };
        assert_eq!(cell(10.0, &[(4.0, 10.0), (6.0, 6.0)]).whole(), Whole::Parts);
        assert_eq!(cell(0.0, &[]).whole(), Whole::Nothing);
        assert_eq!(cell(1.0, &[(501.0, 501.0), (-500.0, -500.0)]).whole(), Whole::Negative);
        assert_eq!(cell(5.0, &[(5.0, 5.0), (0.0, 10.0), (0.0, -5.0)]).whole(), Whole::Negative);
        assert_eq!(cell(-5.0, &[]).whole(), Whole::Negative);
        assert_eq!(cell(5.0, &[(10.0, 10.0)]).whole(), Whole::Negative, "a sample without frames has -5");
    }

    /// Goal: a function is shown with the first file that any profile knows of it, in whatever order profiles are met; one that knows none
    /// takes it from nobody.
    #[test]
    fn a_file_is_not_lost_to_a_profile_without_one() {
        for files in [["", "b.go", "a.go"], ["a.go", "", "b.go"], ["b.go", "a.go", ""]] {
            let mut used = Used::new(1);
            files.iter().for_each(|file| assert_eq!(used.number("work", file), 0));
            assert_eq!(used.names, [("work".to_owned(), "a.go".to_owned())], "{files:?}");
        }
    }
}
