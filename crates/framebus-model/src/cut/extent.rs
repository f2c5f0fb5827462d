//! Sizes of tensors as formulas of batch, height and width.
//!
//! A [`Extent`] is `numerator / denominator x batch^i x height^j x width^k + offset`:
//! a map of stride 16 has `height / 16` rows, attention over it `height x width / 256`
//! tokens, and an average pool of two pixels leaves `height / 8 - 1` rows. That is all
//! that the bodies of YOLO networks need.

/// Which symbols a formula holds, and how often: batch, height, width.
pub(super) type Powers = [u8; 3];

/// No formula of a detector has more symbols; a damaged graph could go on for ever.
const MAX_POWER: u8 = 4;

/// One dimension as a formula; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Extent {
    /// In lowest terms with a positive denominator.
    numerator: i64,
    denominator: i64,
    powers: Powers,
    offset: i64,
}

impl Extent {
    pub(super) const BATCH: Self = Self::symbol([1, 0, 0]);
    pub(super) const HEIGHT: Self = Self::symbol([0, 1, 0]);
    pub(super) const WIDTH: Self = Self::symbol([0, 0, 1]);

    const fn symbol(powers: Powers) -> Self {
        Self { numerator: 1, denominator: 1, powers, offset: 0 }
    }

    pub(super) const fn constant(value: i64) -> Self {
        Self { numerator: value, denominator: 1, powers: [0; 3], offset: 0 }
    }

    /// `numerator / denominator` times the symbols.
    pub(super) fn new(numerator: i64, denominator: i64, powers: Powers) -> Option<Self> {
        if denominator == 0 || powers.iter().any(|&power| power > MAX_POWER) {
            return None;
        }
        let divisor = gcd(numerator.unsigned_abs(), denominator.unsigned_abs());
        let divisor = i64::try_from(divisor).ok()?.checked_mul(denominator.signum())?;
        let (numerator, denominator) =
            (numerator.checked_div(divisor)?, denominator.checked_div(divisor)?);
        let extent = Self { numerator, denominator, powers, offset: 0 };
        (if powers == [0; 3] { denominator == 1 } else { numerator > 0 }).then_some(extent)
    }

    pub(super) fn as_constant(self) -> Option<i64> {
        (self.powers == [0; 3]).then_some(())?;
        self.numerator.checked_add(self.offset)
    }

    /// As a positive count.
    pub(super) fn as_count(self) -> Option<usize> {
        usize::try_from(self.as_constant()?).ok().filter(|&count| count > 0)
    }

    pub(super) fn powers(self) -> Powers {
        self.powers
    }

    pub(super) fn numerator(self) -> i64 {
        self.numerator
    }

    pub(super) fn denominator(self) -> i64 {
        self.denominator
    }

    /// `height / s` gives `s` for `axis` 1, `width / s` for axis 2.
    pub(super) fn stride(self, axis: usize) -> Option<usize> {
        let mut powers = [0; 3];
        *powers.get_mut(axis)? = 1;
        let plain = self.powers == powers && self.numerator == 1 && self.offset == 0;
        plain.then(|| usize::try_from(self.denominator).ok()).flatten()
    }

    pub(super) fn times(self, other: Self) -> Option<Self> {
        if let (Some(a), Some(b)) = (self.as_constant(), other.as_constant()) {
            return Some(Self::constant(a.checked_mul(b)?));
        }
        if self.offset != 0 || other.offset != 0 {
            return None;
        }
        let mut powers = self.powers;
        for (power, more) in powers.iter_mut().zip(other.powers) {
            *power = power.checked_add(more)?;
        }
        Self::new(
            self.numerator.checked_mul(other.numerator)?,
            self.denominator.checked_mul(other.denominator)?,
            powers,
        )
    }

    /// The quotient without rounding; constants are rounded down as integer division does.
    pub(super) fn over(self, other: Self) -> Option<Self> {
        if let (Some(a), Some(b)) = (self.as_constant(), other.as_constant()) {
            return (a >= 0 && b > 0).then(|| Self::constant(a / b));
        }
        if self.offset != 0 || other.offset != 0 || other.numerator == 0 {
            return None;
        }
        let mut powers = self.powers;
        for (power, less) in powers.iter_mut().zip(other.powers) {
            *power = power.checked_sub(less)?;
        }
        Self::new(
            self.numerator.checked_mul(other.denominator)?,
            self.denominator.checked_mul(other.numerator)?,
            powers,
        )
    }

    /// The sum, where it is a formula of the same kind: of equal symbols (the cells of
    /// all scales are `21 / 1024 x height x width`) or with a number.
    pub(super) fn plus(self, other: Self) -> Option<Self> {
        let offset = self.offset.checked_add(other.offset)?;
        if self.powers == other.powers {
            let numerator = self
                .numerator
                .checked_mul(other.denominator)?
                .checked_add(other.numerator.checked_mul(self.denominator)?)?;
            let denominator = self.denominator.checked_mul(other.denominator)?;
            return Some(Self { offset, ..Self::new(numerator, denominator, self.powers)? });
        }
        let (sum, constant) = match (self.as_constant(), other.as_constant()) {
            (_, Some(constant)) => (self, constant),
            (Some(constant), None) => (other, constant),
            (None, None) => return None,
        };
        Some(Self { offset: sum.offset.checked_add(constant)?, ..sum })
    }

    /// Length after a window of `kernel` pixels has moved over it in steps of `stride`,
    /// `padding` being the pixels added at both ends together: `floor((n + padding -
    /// kernel) / stride) + 1`. `None` where that is no formula of this kind.
    pub(super) fn window(self, kernel: i64, stride: i64, padding: i64) -> Option<Self> {
        if stride < 1 || kernel < 1 || padding < 0 {
            return None;
        }
        let rest = self.offset.checked_add(padding)?.checked_sub(kernel)?;
        if let Some(value) = self.as_constant() {
            let room = value.checked_add(padding)?.checked_sub(kernel)?;
            return (room >= 0).then(|| Self::constant(room / stride + 1));
        }
        // The part without the offset is a multiple of `stride` for all sizes that
        // `is_whole` lets through, so it can be taken out of the floor.
        let part = Self { offset: 0, ..self }.over(Self::constant(stride))?;
        Some(Self { offset: rest.div_euclid(stride).checked_add(1)?, ..part })
    }

    /// The number for a given batch, height and width.
    pub(super) fn at(self, sizes: [i64; 3]) -> Option<i64> {
        let mut product = self.numerator;
        for (size, power) in sizes.into_iter().zip(self.powers) {
            for _ in 0..power {
                product = product.checked_mul(size)?;
            }
        }
        let whole = product % self.denominator == 0;
        whole.then_some(product / self.denominator)?.checked_add(self.offset)
    }

    /// Whether it is a whole number for every height and width that are multiples of
    /// `multiple`, and every batch.
    pub(super) fn is_whole(self, multiple: i64) -> bool {
        Self { offset: 0, ..self }.at([1, multiple, multiple]).is_some()
    }
}

/// The product of all; `None` where one is missing or it is no formula.
pub(super) fn product(extents: &[Option<Extent>]) -> Option<Extent> {
    extents.iter().try_fold(Extent::constant(1), |all, &extent| all.times(extent?))
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(extent: Extent, divisor: i64) -> Extent {
        extent.over(Extent::constant(divisor)).expect("divides")
    }

    #[test]
    fn windows_follow_the_formula_for_every_multiple() {
        for (kernel, stride, padding) in [(3, 2, 2), (1, 1, 0), (5, 1, 4), (2, 2, 0), (2, 1, 0)] {
            let formula = Extent::HEIGHT.window(kernel, stride, padding).expect("formula");
            for size in (32..=640).step_by(32) {
                let counted = (size + padding - kernel) / stride + 1;
                assert_eq!(formula.at([1, size, 0]), Some(counted), "{kernel} {stride} {size}");
            }
        }
        // YOLOv9 averages two pixels without padding, then strides: 160 → 159 → 80.
        let map = over(Extent::HEIGHT, 4).window(2, 1, 0).and_then(|map| map.window(3, 2, 2));
        assert_eq!(map, Some(over(Extent::HEIGHT, 8)));
    }

    #[test]
    fn arithmetic_stays_exact() {
        let tokens = over(Extent::HEIGHT, 16).times(over(Extent::WIDTH, 16)).expect("product");
        assert_eq!(tokens.at([1, 640, 640]), Some(1600));
        assert_eq!(over(tokens, 4).at([1, 384, 640]), Some(240));
        assert!(over(tokens, 4).is_whole(32));
        assert!(!over(tokens, 400).is_whole(32));
        assert_eq!(tokens.over(Extent::HEIGHT), Some(over(Extent::WIDTH, 256)));
        assert_eq!(over(Extent::HEIGHT, 8).stride(1), Some(8));
        assert_eq!(over(Extent::HEIGHT, 8).stride(2), None);
        assert_eq!(Extent::WIDTH.plus(Extent::HEIGHT), None);
        let cells = over(tokens, 1).plus(over(tokens, 4)).expect("sum");
        assert_eq!(cells.at([1, 640, 640]), Some(2000));
        assert_eq!(Extent::constant(3).plus(Extent::constant(-1)), Some(Extent::constant(2)));
        assert_eq!(Extent::constant(7).over(Extent::constant(2)), Some(Extent::constant(3)));
        assert_eq!(Extent::constant(i64::MAX).times(Extent::constant(2)), None);
        assert_eq!(Extent::new(1, i64::MIN, [1, 0, 0]), None);
    }
}
