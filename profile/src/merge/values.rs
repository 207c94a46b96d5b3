//! The sums: a row a sample, a column a sample type.
//!
//! A sum is kept exact whatever is added in whichever order, and only [`Values::finish`] rounds it to what 64 bits can hold:
//! saturating at once would make the answer depend on the order. The low 64 bits lie in one array; the rare rest is kept aside.

use hashbrown::HashMap;

/// Where sums stop growing: far beyond 64 bits, and far enough below 128 that no step on the way there overflows.
const SUM_MAX: i128 = 1 << 126;

/// Where the value of a column comes from, when columns are chosen anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// The index of the column it comes from.
    pub(super) source: usize,
    /// What the value is multiplied with.
    pub(super) factor: i128,
}

/// Sums, row by row.
#[derive(Debug, Default)]
pub(super) struct Values {
    width: usize,
    /// The low 64 bits of each sum.
    low: Vec<i64>,
    /// How many times 2^64 is to be added to a sum, where not 0 times.
    carries: HashMap<usize, i64>,
}

// === impl Values ===

impl Values {
    /// Makes no rows of `width` columns.
    pub(super) fn new(width: usize) -> Self {
        Self { width, ..Self::default() }
    }

    /// Adds `row` to row `index`, which may be the one after the last.
    pub(super) fn add(&mut self, index: usize, row: &[i64]) {
        let at = self.at(index);
        for (i, &value) in row.iter().enumerate() {
            let (sum, wrapped) = self.low[at + i].overflowing_add(value);
            self.low[at + i] = sum;
            if wrapped {
                *self.carries.entry(at + i).or_default() += if value < 0 { -1 } else { 1 };
            }
        }
    }

    /// Adds those values of `row` that `columns` name to row `index`, which may be the one after the last.
    pub(super) fn add_columns(&mut self, index: usize, row: &[i64], columns: &[Column]) {
        let at = self.at(index);
        for (i, column) in columns.iter().enumerate() {
            let scaled = i128::from(row[column.source]).saturating_mul(column.factor);
            self.set(at + i, self.get(at + i).saturating_add(scaled));
        }
    }

    /// Chooses the columns anew.
    pub(super) fn reshape(&mut self, columns: &[Column]) {
        let mut reshaped = Self { width: columns.len(), ..Self::default() };
        for start in (0..self.low.len()).step_by(self.width.max(1)) {
            for column in columns {
                reshaped.low.push(0);
                reshaped.set(reshaped.low.len() - 1, self.get(start + column.source).saturating_mul(column.factor));
            }
        }
        *self = reshaped;
    }

    /// Returns the sums, each as near as 64 bits can be, and how many did not fit.
    pub(super) fn finish(mut self) -> (Vec<i64>, usize) {
        self.carries.retain(|_, carry| *carry != 0);
        for (&at, &carry) in &self.carries {
            self.low[at] = if carry < 0 { i64::MIN } else { i64::MAX };
        }
        (self.low, self.carries.len())
    }

    /// Returns how many bytes of memory it holds.
    pub(super) fn memory(&self) -> usize {
        self.low.capacity() * size_of::<i64>() + self.carries.allocation_size()
    }

    /// Returns where row `index` begins, after appending it if it is new.
    fn at(&mut self, index: usize) -> usize {
        let at = index * self.width;
        if at == self.low.len() {
            self.low.resize(at + self.width, 0);
        }
        at
    }

    fn get(&self, at: usize) -> i128 {
        i128::from(self.low[at]) + (i128::from(self.carries.get(&at).copied().unwrap_or(0)) << 64)
    }

    fn set(&mut self, at: usize, sum: i128) {
        let sum = sum.clamp(-SUM_MAX, SUM_MAX);
        // The low half as a signed number; what is then missing is a multiple of 2^64.
        let low = sum as i64;
        self.low[at] = low;
        let carry = ((sum - i128::from(low)) >> 64) as i64;
        if carry != 0 {
            self.carries.insert(at, carry);
        } else {
            self.carries.remove(&at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Near the edges of 64 bits, where sums wrap, and far from them.
        #[test]
        fn sums_are_exact_until_the_end(rows in proptest::collection::vec(
            prop_oneof![any::<i64>(), Just(i64::MAX), Just(i64::MIN), -3..3i64], 1..20,
        ), factor in 1..2_000_000_000_000i128) {
            let (mut values, column) = (Values::new(1), Column { source: 0, factor });
            let mut sum = 0i128;
            for row in &rows {
                values.add(0, &[*row]);
                sum += i128::from(*row);
            }
            values.reshape(&[column]);
            values.add_columns(0, &rows[..1], &[column]);
            sum = (sum + i128::from(rows[0])) * factor;
            let clamped = sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
            prop_assert_eq!(values.finish(), (vec![clamped], usize::from(i128::from(clamped) != sum)));
        }
    }

    #[test]
    fn sums_beyond_128_bits_saturate_as_well() {
        let (mut values, column) = (Values::new(1), Column { source: 0, factor: i128::MAX / 2 });
        values.add_columns(0, &[i64::MAX], &[column]);
        values.add_columns(0, &[i64::MAX], &[column]);
        values.reshape(&[column]);
        assert_eq!(values.finish(), (vec![i64::MAX], 1));
    }

    #[test]
    fn columns_are_chosen_anew_in_every_row() {
        let mut values = Values::new(3);
        values.add(0, &[1, 2, 3]);
        values.add(1, &[4, i64::MAX, 6]);
        values.add(1, &[0, 1, 0]);
        values.reshape(&[Column { source: 2, factor: 10 }, Column { source: 1, factor: 1 }]);
        assert_eq!(values.finish(), (vec![30, 2, 60, i64::MAX], 1));
    }
}
