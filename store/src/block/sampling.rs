//! What a sampling heap profiler makes of the allocations it saw: the arithmetic of Go's heap profiles, undone.
//!
//! Go samples an allocation of `size` bytes with a chance that grows with its size, and multiplies what it saw by the inverse of that
//! chance (`scaleHeapSample` in Go's runtime/pprof): of `n` objects seen, a profile says `n * scale` objects and `n * size * scale` bytes,
//! both without their fractions, with `scale = 1 / (1 - exp(-size / rate))`. The size is the number of the sample's label, the rate the
//! period of the profile. So two large numbers follow from a small one, which is what a block keeps.
//!
//! A reader must come to the same numbers as the writer, on every processor. So there is no function here whose last bit may depend on a
//! platform's library: only conversions and the four operations, which IEEE 754 says to the bit, in the order that docs/format.md has.
//! That they are Go's numbers as well is not relied upon: the writer compares, and keeps what differs as it is.

use super::varint::Damage;

/// The natural logarithm of 2 in two parts, the first with so few bits that its product with a small integer is exact.
const LN_2_HIGH: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
const LN_2_LOW: f64 = f64::from_bits(0x3dea_39ef_3579_3c76);

/// From here on the exponential of what is subtracted from 1 is less than its last bit.
const NEGLIGIBLE: f64 = 64.0;

/// How many terms of the series are added up; at half the logarithm of 2 the next is below the last bit of the sum.
const TERMS: u32 = 14;

/// What is kept of one size at one rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    size: i64,
    /// What Go multiplies by, and its inverse.
    up: f64,
    down: f64,
}

impl Scale {
    fn new(size: i64, rate: u64) -> Self {
        let up = if size <= 0 { 1.0 } else { 1.0 / (1.0 - exp_of_minus(size as f64 / rate as f64)) };
        Self { size, up, down: 1.0 / up }
    }

    /// Returns how many objects a profile says where the profiler saw `seen`.
    #[inline]
    pub(crate) fn objects(&self, seen: u64) -> i64 {
        (seen as f64 * self.up) as i64
    }

    /// Returns how many objects the profiler saw where a profile says `objects`; nothing where it does not say so for any number.
    #[inline]
    pub(crate) fn seen(&self, objects: i64) -> Option<u64> {
        let near = (objects as f64 * self.down) as u64;
        // The fraction of the product is gone, so it is mostly one more.
        [near.saturating_add(1), near].into_iter().find(|&seen| self.objects(seen) == objects)
    }

    /// Returns how many bytes a profile says where it says `objects`; as many as these have if the profiler did not make that number.
    #[inline]
    pub(crate) fn bytes(&self, objects: i64) -> i64 {
        // Most of what a program allocated is no longer in use.
        if objects == 0 {
            return 0;
        }
        match self.seen(objects) {
            Some(seen) => ((seen as i64).wrapping_mul(self.size) as f64 * self.up) as i64,
            None => objects.wrapping_mul(self.size),
        }
    }
}

/// The scales of the label sets of a service at one rate, each made when it is needed.
#[derive(Debug)]
pub(crate) struct Scales<'a> {
    /// The number of each label set.
    numbers: &'a [i64],
    rate: u64,
    of_sets: Vec<Option<Scale>>,
}

impl<'a> Scales<'a> {
    /// Starts with none; `numbers` are those of the label sets.
    pub(crate) fn new(numbers: &'a [i64]) -> Self {
        Self { numbers, rate: 0, of_sets: Vec::new() }
    }

    /// Returns the numbers of the label sets.
    pub(crate) fn numbers(&self) -> &'a [i64] {
        self.numbers
    }

    /// Makes the next ones those of another rate.
    pub(crate) fn set_rate(&mut self, rate: u64) {
        if self.rate != rate || self.of_sets.is_empty() {
            self.rate = rate;
            self.of_sets.clear();
            self.of_sets.resize(self.numbers.len(), None);
        }
    }

    /// Returns the scale of a label set.
    ///
    /// # Errors
    /// There is no such set.
    #[inline]
    pub(crate) fn of(&mut self, set: u32) -> Result<Scale, Damage> {
        let scale = self.of_sets.get_mut(set as usize).ok_or(Damage("an index points past its table"))?;
        Ok(*scale.get_or_insert_with(|| Scale::new(self.numbers[set as usize], self.rate)))
    }
}

/// Returns e to the power of `-x`, for `x` from 0 on, to about half of its last bit.
fn exp_of_minus(x: f64) -> f64 {
    if x > NEGLIGIBLE {
        return 0.0;
    }
    // So many halvings leave a rest in whose series few terms count.
    let halvings = (x / std::f64::consts::LN_2 + 0.5) as u32;
    let (high, low) = (f64::from(halvings) * LN_2_HIGH - x, f64::from(halvings) * LN_2_LOW);
    let rest = high + low;
    // The terms from the square on, the smallest first, each as what it is to the one before.
    let mut sum = 0.0;
    for term in (3..=TERMS).rev() {
        sum = (1.0 + sum) * rest / f64::from(term);
    }
    let from_square = rest * rest / 2.0 * (1.0 + sum);
    let power = 1.0 + (high + (low + from_square));
    power * f64::from_bits(u64::from(1023 - halvings) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Go's default rate, in bytes.
    const RATE: u64 = 512 << 10;

    #[test]
    fn numbers_are_those_of_go() {
        // From `go run` of scaleHeapSample of Go 1.26.
        for (seen, size, objects, bytes) in GO {
            let scale = Scale::new(size, RATE);
            assert_eq!((scale.objects(seen), scale.bytes(objects)), (objects, bytes), "{seen} of {size}");
            assert_eq!(scale.seen(objects), Some(seen));
        }
    }

    /// Objects seen, their size, and the objects and bytes a profile says.
    const GO: [(u64, i64, i64, i64); 11] = [
        (1, 8, 65_536, 524_292),
        (3, 16, 98_305, 1_572_888),
        (1, 48, 10_923, 524_312),
        (7, 112, 32_771, 3_670_408),
        (1_234_567, 32, 20_227_763_017, 647_288_416_569),
        (2, 1024, 1025, 1_049_600),
        (5, 9472, 279, 2_645_191),
        (1, 65_536, 8, 557_738),
        (9, 524_288, 14, 7_464_702),
        (2, 1_048_576, 2, 2_425_393),
        (3, 104_857_600, 3, 314_572_800),
    ];

    proptest! {
        #[test]
        fn the_exponential_is_as_good_as_the_platforms(x in prop_oneof![0.0..1e-3, 0.0..70.0f64]) {
            let (own, other) = (exp_of_minus(x), (-x).exp());
            let negligible = (-NEGLIGIBLE).exp();
            prop_assert!((own - other).abs() <= 2.0 * f64::EPSILON * other + negligible, "{own:e} {other:e}");
        }

        #[test]
        fn what_was_seen_comes_back(seen in 0u64..1 << 40, size in 0i64..1 << 30, rate in 1u64..1 << 30) {
            let scale = Scale::new(size, rate);
            let objects = scale.objects(seen);
            // Two numbers may become one, as large ones do; then either will do.
            prop_assert_eq!(scale.seen(objects).map(|seen| scale.objects(seen)), Some(objects));
        }

        #[test]
        fn any_numbers_have_a_scale(objects: i64, size: i64, rate: u64) {
            let scale = Scale::new(size, rate);
            let _ = (scale.objects(objects as u64), scale.bytes(objects));
        }
    }
}
