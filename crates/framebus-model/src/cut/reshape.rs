//! What a `Reshape` does for every batch, height and width.
//!
//! An export of fixed size bakes numbers into the targets of its reshapes: attention
//! (YOLOv10 and later) turns `[1,256,20,20]` into `[1,2,128,400]`. Here the
//! numbers are traced back to formulas. Dimensions lie in memory in row-major order,
//! so both shapes fall into groups of neighbours with equal products: `1 → 1`,
//! `256 → 2,128`, `20,20 → 400`. A group that ends in one dimension gets the product
//! of its formulas; one that is split again (`400 → 20,20`) takes height before
//! width, as it was flattened. A split that has more than one reading is refused.

use super::extent::{Extent, product};
use super::shapes::Freedom;

type Dims = Vec<Option<Extent>>;

/// What is known beside the graph.
#[derive(Debug, Clone, Copy)]
pub(super) struct Export {
    /// Batch, height and width that were baked in; `None` where one is free.
    pub(super) sizes: Option<[i64; 3]>,
    /// Height and width are always multiples of this.
    pub(super) multiple: i64,
}

/// The shape after the reshape, and whether the node does that for every size as it
/// stands.
pub(super) fn reshape(
    input: &[Option<Extent>],
    target: &[Extent],
    zero_copies: bool,
    export: Export,
) -> (Dims, Freedom) {
    if let Some(shape) = as_it_stands(input, target, zero_copies, export.multiple) {
        return (shape.into_iter().map(Some).collect(), Freedom::Free);
    }
    let matched = match export.sizes {
        Some(sizes) => matched(input, target, zero_copies, sizes, export.multiple),
        None => Err("the target does not follow from the input".to_owned()),
    };
    match matched {
        Ok(shape) => {
            let dims = shape.iter().copied().map(Some).collect();
            (dims, Freedom::NewTarget(shape))
        }
        Err(reason) => {
            // Good enough to go on to the head, which is cut off.
            let dims = target.iter().enumerate().map(|(at, extent)| match extent.as_constant() {
                Some(-1) => None,
                Some(0) if zero_copies => input.get(at).copied().flatten(),
                _ => Some(*extent),
            });
            (dims.collect(), Freedom::Baked(format!("it reshapes to a fixed size: {reason}")))
        }
    }
}

/// The resulting formulas where the target needs no change.
fn as_it_stands(
    input: &[Option<Extent>],
    target: &[Extent],
    zero_copies: bool,
    multiple: i64,
) -> Option<Vec<Extent>> {
    let total = product(input)?;
    let mut shape = Vec::with_capacity(target.len());
    let mut known = Extent::constant(1);
    let mut free = None;
    for (at, &extent) in target.iter().enumerate() {
        let extent = match extent.as_constant() {
            Some(-1) if free.is_none() => {
                free = Some(at);
                Extent::constant(1)
            }
            Some(0) if zero_copies => input.get(at).copied()??,
            Some(..0) => return None,
            _ => extent,
        };
        known = known.times(extent)?;
        shape.push(extent);
    }
    if let Some(slot) = free.and_then(|at| shape.get_mut(at)) {
        // Exact, so that a product of constants is not rounded either.
        let rest = total.over(known).filter(|rest| rest.times(known) == Some(total))?;
        *slot = rest;
    } else if known != total {
        return None;
    }
    // The pictures of a batch must stay apart: they lie outermost.
    let leading = |extent: Option<Extent>| extent.map_or([0; 3], Extent::powers);
    let first = input.first().copied().flatten();
    let apart = total.powers() == [0; 3] || leading(first) == leading(shape.first().copied());
    (apart && shape.iter().all(|extent| extent.is_whole(multiple))).then_some(shape)
}

/// The formulas that the numbers of a fixed size stand for.
fn matched(
    input: &[Option<Extent>],
    target: &[Extent],
    zero_copies: bool,
    sizes: [i64; 3],
    multiple: i64,
) -> Result<Vec<Extent>, String> {
    let unknown = || "the input's shape is not known".to_owned();
    let input: Vec<Extent> = input.iter().copied().collect::<Option<_>>().ok_or_else(unknown)?;
    let from: Option<Vec<i64>> = input.iter().map(|extent| extent.at(sizes)).collect();
    let from = from.ok_or_else(unknown)?;
    let to = numbers(&from, target, zero_copies, sizes)
        .ok_or_else(|| "the target does not hold as many values".to_owned())?;

    let mut shape = Vec::with_capacity(to.len());
    let (mut i, mut j) = (0, 0);
    while i < from.len() || j < to.len() {
        let (start_i, start_j) = (i, j);
        let take = |numbers: &[i64], at: &mut usize| {
            let number = numbers.get(*at).copied().unwrap_or(1);
            *at = (*at + 1).min(numbers.len());
            number
        };
        let (mut left, mut right) = (take(&from, &mut i), take(&to, &mut j));
        while left != right {
            let (numbers, at, side) =
                if left < right { (&from, &mut i, &mut left) } else { (&to, &mut j, &mut right) };
            if *at >= numbers.len() {
                return Err("the target does not hold as many values".to_owned());
            }
            *side = side.checked_mul(take(numbers, at)).ok_or_else(unknown)?;
        }
        // Trailing ones belong to the last group.
        if i == from.len() {
            j = to.len();
        } else if j == to.len() {
            i = from.len();
        }
        split(&input[start_i..i], &to[start_j..j], sizes, multiple, &mut shape)?;
    }
    Ok(shape)
}

/// The target in numbers, with 0 and -1 resolved.
fn numbers(
    from: &[i64],
    target: &[Extent],
    zero_copies: bool,
    sizes: [i64; 3],
) -> Option<Vec<i64>> {
    let total = from.iter().try_fold(1i64, |all, &n| all.checked_mul(n))?;
    let mut to: Vec<i64> = Vec::with_capacity(target.len());
    for (at, extent) in target.iter().enumerate() {
        to.push(match extent.at(sizes)? {
            0 if zero_copies => *from.get(at)?,
            number => number,
        });
    }
    let known = to.iter().filter(|&&n| n != -1).try_fold(1i64, |all, &n| all.checked_mul(n))?;
    if let Some(free) = to.iter().position(|&n| n == -1) {
        to[free] = total.checked_div(known)?;
    }
    let product = to.iter().try_fold(1i64, |all, &n| all.checked_mul(n))?;
    (product == total && to.iter().all(|&n| n > 0)).then_some(to)
}

/// Appends the formulas of one group's targets.
fn split(
    sources: &[Extent],
    targets: &[i64],
    sizes: [i64; 3],
    multiple: i64,
    shape: &mut Vec<Extent>,
) -> Result<(), String> {
    let no_formula = || "its dimensions are no formula of the input's size".to_owned();
    let sources: Vec<Option<Extent>> = sources.iter().copied().map(Some).collect();
    let total = product(&sources).ok_or_else(no_formula)?;
    if total.powers() == [0; 3] {
        shape.extend(targets.iter().map(|&n| Extent::constant(n)));
        return Ok(());
    }
    if targets.len() == 1 {
        shape.push(total);
        return Ok(());
    }
    let [batch @ 0..=1, height @ 0..=1, width @ 0..=1] = total.powers() else {
        return Err(no_formula());
    };
    // Every way to give height, then width, to the targets in order. The batch is
    // outermost, or pictures would mix.
    let last = targets.len();
    let mut found: Option<Vec<Extent>> = None;
    for h in 0..if height == 1 { last } else { 1 } {
        for w in h..if width == 1 { last } else { h + 1 } {
            let reading: Option<Vec<Extent>> = targets
                .iter()
                .enumerate()
                .map(|(at, &number)| {
                    let powers = [
                        if at == 0 { batch } else { 0 },
                        if at == h { height } else { 0 },
                        if at == w { width } else { 0 },
                    ];
                    let symbols = Extent::new(1, 1, powers)?.at(sizes)?;
                    Extent::new(number, symbols, powers).filter(|e| e.is_whole(multiple))
                })
                .collect();
            let Some(reading) = reading else { continue };
            let dims: Vec<Option<Extent>> = reading.iter().copied().map(Some).collect();
            if product(&dims) == Some(total) && found.replace(reading).is_some() {
                return Err("its target can be read in more than one way".to_owned());
            }
        }
    }
    shape.extend(found.ok_or_else(no_formula)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQUARE: Export = Export { sizes: Some([1, 640, 640]), multiple: 32 };

    fn constant(values: &[i64]) -> Vec<Extent> {
        values.iter().map(|&n| Extent::constant(n)).collect()
    }

    fn map(channels: i64, stride: i64) -> Dims {
        let side = |extent: Extent| extent.over(Extent::constant(stride));
        vec![
            Some(Extent::BATCH),
            Some(Extent::constant(channels)),
            side(Extent::HEIGHT),
            side(Extent::WIDTH),
        ]
    }

    /// The shape for another batch and size, and whether the node stays.
    fn run(input: &[Option<Extent>], target: &[i64], export: Export) -> (Vec<i64>, bool) {
        let (shape, freedom) = reshape(input, &constant(target), true, export);
        let shape = shape.iter().map(|d| d.and_then(|d| d.at([3, 384, 640])).unwrap_or(-1));
        (shape.collect(), matches!(freedom, Freedom::Free))
    }

    fn shape_of(input: &[Option<Extent>], target: &[i64]) -> Dims {
        reshape(input, &constant(target), true, SQUARE).0
    }

    #[test]
    fn attention_of_yolo11() {
        assert_eq!(run(&map(256, 32), &[1, 2, 128, 400], SQUARE), (vec![3, 2, 128, 240], false));
        let mut value = shape_of(&map(256, 32), &[1, 2, 128, 400]);
        value[2] = Some(Extent::constant(64));
        assert_eq!(run(&value, &[1, 128, 20, 20], SQUARE), (vec![3, 128, 12, 20], false));
    }

    #[test]
    fn area_attention_of_yolo12() {
        let tokens = shape_of(&map(192, 16), &[1, 192, -1]);
        let tokens = vec![tokens[0], tokens[2], tokens[1]];
        let areas = shape_of(&tokens, &[4, 400, 2, 96]);
        assert_eq!(run(&tokens, &[4, 400, 2, 96], SQUARE), (vec![12, 240, 2, 96], false));
        let value = vec![areas[0], areas[1], Some(Extent::constant(2)), Some(Extent::constant(32))];
        assert_eq!(run(&value, &[1, 40, 40, 64], SQUARE), (vec![3, 24, 40, 64], false));
    }

    #[test]
    fn targets_that_fit_every_size_stay() {
        assert_eq!(run(&map(144, 8), &[0, 144, -1], SQUARE), (vec![3, 144, 48 * 80], true));
        assert_eq!(run(&map(8, 8), &[0, 2, 4, -1], SQUARE).0, [3, 2, 4, 48 * 80]);
        // A batch of one that is written down must not swallow the others.
        assert_eq!(run(&map(144, 8), &[1, 144, -1], SQUARE), (vec![3, 144, 48 * 80], false));
        assert_eq!(run(&map(64, 32), &[-1, 64, 400], SQUARE), (vec![3, 64, 240], false));
    }

    #[test]
    fn what_does_not_follow_is_baked() {
        let baked = |input: &[Option<Extent>], target: &[i64], export| {
            let (_, freedom) = reshape(input, &constant(target), true, export);
            matches!(freedom, Freedom::Baked(_))
        };
        assert!(baked(&map(64, 32), &[1, 64, 399], SQUARE));
        // 64 x 32 rows as 32 x 64: either may be the rows.
        let large = Export { sizes: Some([1, 1024, 1024]), multiple: 32 };
        assert!(baked(&map(64, 32), &[1, 32, 64, 32], large));
        assert!(baked(&map(64, 32), &[1, 64, 400], Export { sizes: None, multiple: 32 }));
        assert!(baked(&[None, Some(Extent::constant(4))], &[1, 4], SQUARE));
        assert!(baked(&map(64, 32), &[0, 0, 0, 0, 0], SQUARE));
        assert!(baked(&map(64, 32), &[i64::MAX, i64::MAX], SQUARE));
    }
}
