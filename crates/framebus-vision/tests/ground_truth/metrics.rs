//! MOTA (Bernardin and Stiefelhagen 2008) and IDF1 (Ristani et al. 2016,
//! arXiv:1609.01775), boxes being the same at an overlap of half.

use framebus_vision::iou;
use std::collections::BTreeMap;

/// `(id, box)` of a frame.
pub(crate) type Boxes = Vec<(u64, [f32; 4])>;

const SAME: f32 = 0.5;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Score {
    pub truth: usize,
    pub missed: usize,
    pub false_boxes: usize,
    pub switches: usize,
    /// Frames in which the best global pairing of identities agrees, and all boxes of both.
    pub identity_hits: usize,
    pub answers: usize,
}

impl Score {
    pub(crate) fn mota(&self) -> f64 {
        let errors = self.missed + self.false_boxes + self.switches;
        1.0 - errors as f64 / self.truth as f64
    }

    pub(crate) fn idf1(&self) -> f64 {
        2.0 * self.identity_hits as f64 / (self.truth + self.answers) as f64
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.truth += other.truth;
        self.missed += other.missed;
        self.false_boxes += other.false_boxes;
        self.switches += other.switches;
        self.identity_hits += other.identity_hits;
        self.answers += other.answers;
    }
}

/// Compares frame by frame.
pub(crate) fn score(truth: &[Boxes], answer: &[Boxes]) -> Score {
    let mut score = Score::default();
    // Whom an object was last found as, and the pairs of the frame before.
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let mut common: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for (truth, answer) in truth.iter().zip(answer) {
        score.truth += truth.len();
        score.answers += answer.len();
        let mut costs = vec![vec![FORBIDDEN; answer.len()]; truth.len()];
        for (row, (id, bbox)) in truth.iter().enumerate() {
            for (column, (track, other)) in answer.iter().enumerate() {
                let overlap = iou(*bbox, *other);
                if overlap >= SAME {
                    *common.entry((*id, *track)).or_default() += 1;
                    // Pairs that held before hold on, whatever would fit better now.
                    let held = last.get(id) == Some(track);
                    costs[row][column] = 1.0 - f64::from(overlap) - if held { 1e4 } else { 0.0 };
                }
            }
        }
        let pairs = assign(&costs);
        score.missed += truth.len() - pairs.len();
        score.false_boxes += answer.len() - pairs.len();
        for (row, column) in pairs {
            let (id, track) = (truth[row].0, answer[column].0);
            if last.insert(id, track).is_some_and(|before| before != track) {
                score.switches += 1;
            }
        }
    }
    score.identity_hits = identity_hits(&common);
    score
}

fn identity_hits(common: &BTreeMap<(u64, u64), usize>) -> usize {
    let number = |ids: Vec<u64>| -> BTreeMap<u64, usize> {
        let mut ids = ids;
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().zip(0..).collect()
    };
    let rows = number(common.keys().map(|key| key.0).collect());
    let columns = number(common.keys().map(|key| key.1).collect());
    let mut costs = vec![vec![FORBIDDEN; columns.len()]; rows.len()];
    for ((id, track), count) in common {
        costs[rows[id]][columns[track]] = -(*count as f64);
    }
    let back: BTreeMap<(usize, usize), usize> =
        common.iter().map(|((id, track), count)| ((rows[id], columns[track]), *count)).collect();
    assign(&costs).into_iter().map(|pair| back[&pair]).sum()
}

const FORBIDDEN: f64 = 1e9;

/// The cheapest pairs, as many as are allowed: the Hungarian method on a square matrix.
fn assign(costs: &[Vec<f64>]) -> Vec<(usize, usize)> {
    let (rows, columns) = (costs.len(), costs.first().map_or(0, Vec::len));
    let size = rows.max(columns);
    let cost = |row: usize, column: usize| {
        costs.get(row).and_then(|row| row.get(column)).copied().unwrap_or(FORBIDDEN)
    };
    let (mut u, mut v) = (vec![0.0; size + 1], vec![0.0; size + 1]);
    let mut row_of = vec![0; size + 1];
    for row in 1..=size {
        let (mut least, mut done) = (vec![f64::INFINITY; size + 1], vec![false; size + 1]);
        let mut before = vec![0; size + 1];
        row_of[0] = row;
        let mut at = 0;
        while row_of[at] != 0 {
            done[at] = true;
            let from = row_of[at];
            let (mut next, mut delta) = (0, f64::INFINITY);
            for column in (1..=size).filter(|&column| !done[column]) {
                let way = cost(from - 1, column - 1) - u[from] - v[column];
                if way < least[column] {
                    (least[column], before[column]) = (way, at);
                }
                if least[column] < delta {
                    (next, delta) = (column, least[column]);
                }
            }
            for column in 0..=size {
                if done[column] {
                    u[row_of[column]] += delta;
                    v[column] -= delta;
                } else {
                    least[column] -= delta;
                }
            }
            at = next;
        }
        while at != 0 {
            row_of[at] = row_of[before[at]];
            at = before[at];
        }
    }
    (1..=size)
        .map(|column| (row_of[column] - 1, column - 1))
        .filter(|&(row, column)| cost(row, column) < FORBIDDEN)
        .collect()
}
