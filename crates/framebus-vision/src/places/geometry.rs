//! Points, segments and polygons in pixels.

/// A point, x to the right and y down.
pub(super) type Point = [f32; 2];

fn sub(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1]]
}

/// z of the cross product: positive where `b` is clockwise of `a` on the screen.
fn cross(a: Point, b: Point) -> f32 {
    a[0] * b[1] - a[1] * b[0]
}

/// Distance from `point` to the segment.
pub(super) fn distance(point: Point, from: Point, to: Point) -> f32 {
    let (along, there) = (sub(to, from), sub(point, from));
    let length = along[0] * along[0] + along[1] * along[1];
    let share = ((along[0] * there[0] + along[1] * there[1]) / length).clamp(0.0, 1.0);
    // A segment without length is a point; 0 / 0 clamps to NaN.
    let share = if length > 0.0 { share } else { 0.0 };
    let off = [there[0] - share * along[0], there[1] - share * along[1]];
    (off[0] * off[0] + off[1] * off[1]).sqrt()
}

/// Whether the point lies on the right of somebody who walks from `from` to `to`. Points
/// on the line itself count as right: each point has one side, so that a way through the
/// line is one change of side wherever its points are.
pub(super) fn is_right(point: Point, from: Point, to: Point) -> bool {
    cross(sub(to, from), sub(point, from)) >= 0.0
}

/// How often a step from `a` to `b` goes through the segment: 1 from its left to its
/// right side, -1 back, 0 beside it.
pub(super) fn passes(a: Point, b: Point, from: Point, to: Point) -> i32 {
    let (before, after) = (is_right(a, from, to), is_right(b, from, to));
    // The ends of the segment likewise lie on one side each of the step.
    if before == after || is_right(from, a, b) == is_right(to, a, b) {
        return 0;
    }
    if after { 1 } else { -1 }
}

/// Whether the point lies in the polygon, by the even-odd rule: the ring closes itself,
/// and where it crosses itself, what is surrounded twice is outside.
pub(super) fn contains(ring: &[Point], point: Point) -> bool {
    let mut inside = false;
    let Some(mut last) = ring.last() else { return false };
    for corner in ring {
        let ([x1, y1], [x2, y2]) = (*last, *corner);
        if (y1 > point[1]) != (y2 > point[1])
            && point[0] < (x2 - x1) * (point[1] - y1) / (y2 - y1) + x1
        {
            inside = !inside;
        }
        last = corner;
    }
    inside
}

/// Distance from the point to the polygon's edge, but for where that is an edge of a
/// picture of this size: nobody can be seen crossing it.
pub(super) fn edge_distance(ring: &[Point], point: Point, [width, height]: Point) -> f32 {
    let mut nearest = f32::INFINITY;
    let Some(mut last) = ring.last() else { return nearest };
    for corner in ring {
        let both = |is_out: fn(Point, Point) -> bool| {
            is_out(*last, [width, height]) && is_out(*corner, [width, height])
        };
        let of_picture = both(|point, _| point[0] <= 0.0)
            || both(|point, _| point[1] <= 0.0)
            || both(|point, size| point[0] >= size[0])
            || both(|point, size| point[1] >= size[1]);
        if !of_picture {
            nearest = nearest.min(distance(point, *last, *corner));
        }
        last = corner;
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_through_a_segment_counts_once_wherever_it_stops() {
        let (from, to) = ([0.0, 10.0], [100.0, 10.0]);
        assert_eq!(passes([50.0, 0.0], [50.0, 20.0], from, to), 1, "down: left to right");
        assert_eq!(passes([50.0, 20.0], [50.0, 0.0], from, to), -1);
        assert_eq!(passes([150.0, 0.0], [150.0, 20.0], from, to), 0, "past its end");
        assert_eq!(passes([-50.0, 0.0], [-50.0, 20.0], from, to), 0, "before its start");
        // In two steps with the stop on the line, and in two that only touch it.
        let steps = |way: &[Point]| -> i32 {
            way.windows(2).map(|pair| passes(pair[0], pair[1], from, to)).sum()
        };
        assert_eq!(steps(&[[50.0, 0.0], [50.0, 10.0], [50.0, 20.0]]), 1);
        assert_eq!(steps(&[[50.0, 20.0], [50.0, 10.0], [50.0, 0.0]]), -1);
        assert_eq!(steps(&[[50.0, 0.0], [50.0, 10.0], [50.0, 0.0]]), 0);
        assert_eq!(steps(&[[50.0, 20.0], [50.0, 10.0], [50.0, 20.0]]), 0);
        assert_eq!(steps(&[[50.0, 10.0], [60.0, 10.0], [50.0, 10.0]]), 0);
    }

    #[test]
    fn polygons_may_be_concave() {
        // A U, open at the top.
        let ring = [
            [0.0, 0.0],
            [10.0, 0.0],
            [10.0, 20.0],
            [20.0, 20.0],
            [20.0, 0.0],
            [30.0, 0.0],
            [30.0, 30.0],
            [0.0, 30.0],
        ];
        for (point, inside) in
            [([5.0, 5.0], true), ([15.0, 5.0], false), ([15.0, 25.0], true), ([31.0, 5.0], false)]
        {
            assert_eq!(contains(&ring, point), inside, "{point:?}");
        }
        let size = [100.0, 100.0];
        assert_eq!(edge_distance(&ring, [15.0, 17.0], size), 3.0);
        assert_eq!(edge_distance(&ring, [33.0, 34.0], size), 5.0);
        assert_eq!(edge_distance(&ring, [1.0, 28.0], size), 2.0, "its left edge is the picture's");
        assert_eq!(edge_distance(&ring, [5.0, 28.0], [30.0, 30.0]), 8.0_f32.hypot(5.0));
        assert_eq!(distance([3.0, 4.0], [0.0, 0.0], [0.0, 0.0]), 5.0);
        assert!(!contains(&[], [0.0, 0.0]) && edge_distance(&[], [0.0, 0.0], size).is_infinite());
    }
}
