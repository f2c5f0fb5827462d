//! What single operators do to shapes.

use super::extent::Extent;
use super::shapes::{MAX_VALUES, Tensor};
use crate::onnx::NodeProto;

pub(super) fn count(length: usize) -> Option<Extent> {
    i64::try_from(length).ok().map(Extent::constant)
}

/// A dimension that two tensors must share.
pub(super) fn same(a: Option<Extent>, b: Option<Extent>) -> Result<Option<Extent>, String> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => Err("its inputs do not fit together".to_owned()),
        (a, b) => Ok(a.and(b)),
    }
}

/// ONNX's multidirectional broadcasting.
pub(super) fn broadcast(
    a: &[Option<Extent>],
    b: &[Option<Extent>],
) -> Result<Vec<Option<Extent>>, String> {
    const ONE: Option<Extent> = Some(Extent::constant(1));
    let rank = a.len().max(b.len());
    let dim = |dims: &[Option<Extent>], at: usize| {
        (at + dims.len()).checked_sub(rank).map_or(ONE, |at| dims[at])
    };
    let joined = (0..rank).map(|at| match (dim(a, at), dim(b, at)) {
        (ONE, other) | (other, ONE) => Ok(other),
        (a, b) => same(a, b),
    });
    joined.collect()
}

/// Integer arithmetic on the values of short lists.
pub(super) fn arithmetic(operator: &str, a: &Tensor, b: &Tensor) -> Option<Vec<Extent>> {
    let (left, right) = (a.values.as_ref()?, b.values.as_ref()?);
    let length = left.len().max(right.len());
    let fits = |list: &[Extent]| list.len() == length || list.len() == 1;
    if !fits(left) || !fits(right) || length > MAX_VALUES {
        return None;
    }
    let values = left.iter().cycle().zip(right.iter().cycle()).take(length);
    let minus = |value: Extent| value.as_constant()?.checked_neg().map(Extent::constant);
    let each = values.map(|(&a, &b)| match operator {
        "Add" => a.plus(b),
        "Sub" => a.plus(minus(b)?),
        "Mul" => a.times(b),
        "Div" => a.over(b),
        _ => None,
    });
    each.collect()
}

/// Convolutions and pools.
pub(super) fn window(
    node: &NodeProto,
    input: &Tensor,
    weight: Option<&Tensor>,
) -> Result<Tensor, String> {
    let &[batch, channels, height, width] = input.shape.as_slice() else {
        return Err("its input is no map".to_owned());
    };
    let automatic = node.attribute("auto_pad").map_or(&b""[..], |attribute| &attribute.s);
    if !matches!(automatic, b"" | b"NOTSET") || node.int("ceil_mode").unwrap_or(0) != 0 {
        return Err("its padding depends on the size".to_owned());
    }
    let kernel = match weight.map(|weight| weight.shape.as_slice()) {
        Some(&[_, _, rows, columns]) => {
            [rows, columns].map(|n| n.and_then(Extent::as_constant).unwrap_or(0))
        }
        Some(_) => return Err("its weights have no two dimensions".to_owned()),
        None => pair(node, "kernel_shape", [0, 0])?,
    };
    let out_channels = weight.map_or(channels, |weight| weight.shape[0]);
    let strides = pair(node, "strides", [1, 1])?;
    let dilations = pair(node, "dilations", [1, 1])?;
    let pads = match node.ints("pads") {
        None => [0, 0],
        Some(&[top, left, bottom, right]) => {
            [top.saturating_add(bottom), left.saturating_add(right)]
        }
        Some(_) => return Err("its padding has no two dimensions".to_owned()),
    };
    let slide = |side: Option<Extent>, axis: usize| -> Result<Option<Extent>, String> {
        let Some(side) = side else { return Ok(None) };
        let reach = kernel[axis].saturating_sub(1).saturating_mul(dilations[axis]);
        side.window(reach.saturating_add(1), strides[axis], pads[axis])
            .map(Some)
            .ok_or_else(|| "its window does not fit".to_owned())
    };
    Ok(Tensor::of(vec![batch, out_channels, slide(height, 0)?, slide(width, 1)?]))
}

fn pair(node: &NodeProto, name: &str, default: [i64; 2]) -> Result<[i64; 2], String> {
    match node.ints(name) {
        None => Ok(default),
        Some(&[rows, columns]) => Ok([rows, columns]),
        Some(_) => Err(format!("its {name} has no two dimensions")),
    }
}

pub(super) fn gather(node: &NodeProto, input: &Tensor, indices: &Tensor) -> Result<Tensor, String> {
    let picked = input.values.as_ref().zip(indices.numbers()).and_then(|(values, indices)| {
        let length = i64::try_from(values.len()).ok()?;
        let pick = |&at: &i64| {
            let at = usize::try_from(if at < 0 { at + length } else { at }).ok()?;
            values.get(at).copied()
        };
        indices.iter().map(pick).collect::<Option<Vec<Extent>>>()
    });
    match picked {
        Some(values) if node.int("axis").unwrap_or(0) == 0 && input.shape.len() == 1 => {
            Ok(Tensor { shape: indices.shape.clone(), values: Some(values) })
        }
        _ => Err("what it picks is not known".to_owned()),
    }
}

pub(super) fn matmul(a: &[Option<Extent>], b: &[Option<Extent>]) -> Result<Tensor, String> {
    let ([batch_a @ .., rows, inner_a], [batch_b @ .., inner_b, columns]) = (a, b) else {
        return Err("its inputs are no matrices".to_owned());
    };
    same(*inner_a, *inner_b)?;
    let mut shape = broadcast(batch_a, batch_b)?;
    shape.extend([*rows, *columns]);
    Ok(Tensor::of(shape))
}

pub(super) fn shape_of(node: &NodeProto, input: &Tensor) -> Result<Tensor, String> {
    if node.attribute("start").is_some() || node.attribute("end").is_some() {
        return Err("it reads a part of a shape".to_owned());
    }
    let values: Option<Vec<Extent>> = input.shape.iter().copied().collect();
    let list = |values| Tensor::list(values, false);
    let length = vec![count(input.shape.len())];
    Ok(values.map_or_else(|| Tensor::of(length), list))
}

pub(super) fn transpose(node: &NodeProto, input: &Tensor) -> Result<Tensor, String> {
    let rank = input.shape.len();
    let order: Option<Vec<usize>> = match node.ints("perm") {
        Some(order) => order.iter().map(|&axis| input.axis(axis)).collect(),
        None => Some((0..rank).rev().collect()),
    };
    let order = order.filter(|order| {
        let mut sorted = order.clone();
        sorted.sort_unstable();
        sorted.iter().copied().eq(0..rank)
    });
    let order = order.ok_or_else(|| "its order does not fit its input".to_owned())?;
    Ok(Tensor::of(order.into_iter().map(|axis| input.shape[axis]).collect()))
}
