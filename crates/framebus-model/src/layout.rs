//! Which of the known YOLO outputs a model has.

use crate::model::{Dim, TensorInfo};

/// How boxes and scores lie in the output tensor. Boxes are pixels of the
/// network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputLayout {
    /// One row of `4 + classes` values per anchor: centre x, centre y, width,
    /// height, then a score per class. Needs suppression of overlapping boxes.
    Dense {
        /// `true`: `[batch, 4 + classes, anchors]` (YOLOv8's own export);
        /// `false`: `[batch, anchors, 4 + classes]`.
        channels_first: bool,
    },
    /// `[batch, n, 6]`: left, top, right, bottom, score, class; already suppressed.
    EndToEnd,
    /// The raw tensors of a model whose head was cut off, two a scale: see
    /// [`Model::heads`](crate::Model::heads).
    Heads,
}

/// What the metadata says that helps to read the output's shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hints {
    /// Classes named in the metadata.
    pub(crate) named: Option<usize>,
    /// Whether suppression is part of the graph, where the metadata says so.
    pub(crate) end_to_end: Option<bool>,
    /// Anchors of the usual three strides 8, 16, 32 for a fixed input size.
    pub(crate) anchors: Option<usize>,
}

/// Layout and class count, or the sentence that says why none fits.
pub(crate) fn recognise(
    output: &TensorInfo,
    hints: Hints,
) -> Result<(OutputLayout, usize), String> {
    let [_, first, second] = output.shape.as_slice() else {
        return Err(format!("its output has rank {} instead of 3", output.shape.len()));
    };
    let (first, second) = (first.fixed(), second.fixed());
    if hints.end_to_end == Some(true) && second.is_none_or(|n| n == 6) {
        return end_to_end(hints.named);
    }
    match hints.named {
        Some(classes) => named(first, second, classes, hints),
        None => unnamed(first, second, hints),
    }
}

fn may_be_end_to_end(hints: Hints) -> bool {
    hints.end_to_end != Some(false)
}

fn dense(channels_first: bool, classes: usize) -> Result<(OutputLayout, usize), String> {
    Ok((OutputLayout::Dense { channels_first }, classes))
}

fn end_to_end(named: Option<usize>) -> Result<(OutputLayout, usize), String> {
    match named {
        Some(classes) => Ok((OutputLayout::EndToEnd, classes)),
        None => Err("its output [n,6] does not say how many classes there are and the metadata \
                     has no `names`"
            .to_owned()),
    }
}

fn named(
    first: Option<usize>,
    second: Option<usize>,
    classes: usize,
    hints: Hints,
) -> Result<(OutputLayout, usize), String> {
    let channels = 4 + classes;
    // With two classes, [batch, n, 6] is both a transposed dense output and an
    // end-to-end one; only the metadata or the input's anchor count tells them apart.
    let transposed = classes == 2 && first == hints.anchors;
    if second == Some(6) && first != Some(channels) && !transposed && may_be_end_to_end(hints) {
        return end_to_end(Some(classes));
    }
    match (first, second) {
        (Some(n), _) if n == channels => dense(true, classes),
        (_, Some(n)) if n == channels => dense(false, classes),
        (None, _) => dense(true, classes),
        (Some(_), None) => Err(format!(
            "its metadata names {classes} classes, which needs {channels} output channels"
        )),
        (Some(a), Some(b)) => Err(format!(
            "its metadata names {classes} classes, which needs {channels} output channels, and \
             neither {a} nor {b} is that"
        )),
    }
}

fn unnamed(
    first: Option<usize>,
    second: Option<usize>,
    hints: Hints,
) -> Result<(OutputLayout, usize), String> {
    let (channels_first, channels) = match (first, second) {
        (Some(a), Some(6)) if a != 6 && Some(a) != hints.anchors && may_be_end_to_end(hints) => {
            return end_to_end(None);
        }
        (Some(a), Some(b)) if hints.anchors == Some(a) && a != b => (false, b),
        (Some(a), Some(b)) if hints.anchors == Some(b) || a <= b => (true, a),
        (Some(_), Some(b)) => (false, b),
        (Some(a), None) => (true, a),
        (None, Some(b)) => (false, b),
        (None, None) => {
            return Err("its output shape is symbolic and the metadata has no `names`, so the \
                        number of classes cannot be known"
                .to_owned());
        }
    };
    if channels < 5 {
        return Err(format!(
            "its output has {channels} channels; four for the box and at least one class are needed"
        ));
    }
    dense(channels_first, channels - 4)
}

/// Anchors of strides 8, 16 and 32 for a fixed input size.
pub(crate) fn anchors(size: Option<(usize, usize)>) -> Option<usize> {
    let (height, width) = size?;
    [8, 16, 32].iter().try_fold(0usize, |sum, stride| {
        sum.checked_add((height / stride).checked_mul(width / stride)?)
    })
}

/// `[1,84,8400]`, symbolic dimensions by name.
pub(crate) fn shape_text(shape: &[Dim]) -> String {
    let dims: Vec<String> = shape
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(n) => n.to_string(),
            Dim::Symbolic(name) if name.is_empty() => "?".to_owned(),
            Dim::Symbolic(name) => name.clone(),
        })
        .collect();
    format!("[{}]", dims.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(first: Option<usize>, second: Option<usize>) -> TensorInfo {
        let dim = |n: Option<usize>| n.map_or(Dim::Symbolic("n".to_owned()), Dim::Fixed);
        TensorInfo {
            name: "output0".to_owned(),
            element_type: 1,
            shape: vec![Dim::Fixed(1), dim(first), dim(second)],
        }
    }

    #[test]
    fn shapes_of_known_exports() {
        const A: Option<usize> = Some(8400);
        let dense = |channels_first| OutputLayout::Dense { channels_first };
        // first, second, named, end to end, anchors → layout, classes
        let table = [
            ((Some(84), A), Some(80), None, A, (dense(true), 80)),
            ((A, Some(84)), Some(80), None, A, (dense(false), 80)),
            ((Some(84), A), None, None, A, (dense(true), 80)),
            ((A, Some(84)), None, None, None, (dense(false), 80)),
            ((Some(5), A), Some(1), None, A, (dense(true), 1)),
            ((Some(6), A), Some(2), None, A, (dense(true), 2)),
            ((A, Some(6)), Some(2), None, A, (dense(false), 2)),
            ((A, Some(6)), None, None, A, (dense(false), 2)),
            ((Some(300), Some(6)), Some(2), None, A, (OutputLayout::EndToEnd, 2)),
            ((Some(300), Some(6)), Some(80), Some(true), A, (OutputLayout::EndToEnd, 80)),
            ((Some(300), None), Some(80), Some(true), None, (OutputLayout::EndToEnd, 80)),
            ((Some(84), None), Some(80), None, None, (dense(true), 80)),
            ((Some(84), None), None, None, None, (dense(true), 80)),
            ((None, None), Some(3), None, None, (dense(true), 3)),
            // Two classes, transposed, and only the metadata says so.
            ((Some(9), Some(6)), Some(2), Some(false), None, (dense(false), 2)),
            // More classes than anchors: a small input and many classes.
            ((Some(604), Some(84)), None, None, Some(84), (dense(true), 600)),
        ];
        for ((first, second), named, end_to_end, anchors, expected) in table {
            let hints = Hints { named, end_to_end, anchors };
            let found = recognise(&output(first, second), hints);
            assert_eq!(found, Ok(expected), "{first:?} {second:?} {hints:?}");
        }
    }

    #[test]
    fn shapes_that_fit_nothing() {
        let hints = |named| Hints { named, end_to_end: None, anchors: None };
        assert!(recognise(&output(Some(84), Some(8400)), hints(Some(3))).is_err());
        assert!(recognise(&output(Some(4), Some(8400)), hints(None)).is_err());
        assert!(recognise(&output(None, None), hints(None)).is_err());
        assert!(recognise(&output(Some(300), Some(6)), hints(None)).is_err());
    }
}
