//! Which observation continues which track: the pairs with the greatest sum of gains.
//!
//! A pair's gain is how much its similarity is above the least that is accepted, so that
//! leaving both alone costs exactly as much as a pair at the limit; that is what the
//! `cost_limit` of ByteTrack's `lapjv` does. Only boxes that overlap can be a pair, so
//! the problem falls into small groups, each solved by shortest augmenting paths
//! (Jonker and Volgenant 1987), n² m steps for n <= m.

/// A track's predicted box, or an observed one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    /// Number by which the caller knows it.
    pub index: u32,
    pub class: u32,
    pub bbox: [f32; 4],
    /// Of an observation: what its overlaps are multiplied with.
    pub weight: f32,
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    row: u32,
    column: u32,
    gain: f32,
    group: u32,
}

/// Solves; keeps its scratch memory from frame to frame.
#[derive(Debug, Clone, Default)]
pub(super) struct Matcher {
    /// Tracks, to be filled before [`Matcher::solve`].
    pub rows: Vec<Item>,
    /// Observations, likewise.
    pub columns: Vec<Item>,
    /// `(index of the row, index of the column)`.
    pairs: Vec<(u32, u32)>,
    edges: Vec<Edge>,
    /// Union-find over rows, then columns.
    parents: Vec<u32>,
    /// Number within the group in work of each row, and of each column.
    local: [Vec<u32>; 2],
    /// Rows and columns of the group in work.
    members: [Vec<u32>; 2],
    dense: Dense,
}

impl Matcher {
    /// The best pairs of the same class whose similarity, overlap (intersection over
    /// union) times weight, exceeds `least`.
    pub(super) fn solve(&mut self, least: f32) -> &[(u32, u32)] {
        self.pairs.clear();
        self.find_edges(least);
        self.group();
        let mut at = 0;
        while let Some(&Edge { group, row, column, .. }) = self.edges.get(at) {
            let end = at + self.edges[at..].partition_point(|edge| edge.group == group);
            if end == at + 1 {
                self.pair(row, column);
            } else {
                self.solve_group(at, end);
            }
            at = end;
        }
        &self.pairs
    }

    fn pair(&mut self, row: u32, column: u32) {
        let (row, column) = (self.rows[row as usize].index, self.columns[column as usize].index);
        self.pairs.push((row, column));
    }

    fn find_edges(&mut self, least: f32) {
        self.edges.clear();
        for (row, track) in (0_u32..).zip(&self.rows) {
            let [left, top, right, bottom] = track.bbox;
            let area = (right - left) * (bottom - top);
            for (column, seen) in (0_u32..).zip(&self.columns) {
                let width = right.min(seen.bbox[2]) - left.max(seen.bbox[0]);
                let height = bottom.min(seen.bbox[3]) - top.max(seen.bbox[1]);
                if width <= 0.0 || height <= 0.0 || seen.class != track.class {
                    continue;
                }
                let [l, t, r, b] = seen.bbox;
                let both = width * height;
                let gain = both / (area + (r - l) * (b - t) - both) * seen.weight - least;
                if gain > 0.0 {
                    self.edges.push(Edge { row, column, gain, group: 0 });
                }
            }
        }
    }

    /// Edges that share rows or columns get the same group and stand together.
    fn group(&mut self) {
        let columns = self.rows.len() as u32;
        self.parents.clear();
        self.parents.extend(0..columns + self.columns.len() as u32);
        for edge in &self.edges {
            let row = root(&mut self.parents, edge.row);
            let column = root(&mut self.parents, columns + edge.column);
            self.parents[row.max(column) as usize] = row.min(column);
        }
        for edge in &mut self.edges {
            edge.group = root(&mut self.parents, edge.row);
        }
        self.edges.sort_unstable_by_key(|edge| (edge.group, edge.row, edge.column));
    }

    fn solve_group(&mut self, from: usize, to: usize) {
        let nodes = self.rows.len().max(self.columns.len());
        let edges = &self.edges[from..to];
        for (side, members) in self.members.iter_mut().enumerate() {
            members.clear();
            members.extend(edges.iter().map(|edge| if side == 0 { edge.row } else { edge.column }));
            members.sort_unstable();
            members.dedup();
            self.local[side].resize(self.local[side].len().max(nodes), 0);
            for (number, &member) in (0_u32..).zip(&*members) {
                self.local[side][member as usize] = number;
            }
        }
        let [rows, columns] = [0, 1].map(|side: usize| self.members[side].len());
        // The solver wants at least as many columns as rows.
        let turned = rows > columns;
        let (rows, columns) = if turned { (columns, rows) } else { (rows, columns) };
        self.dense.reset(rows, columns);
        for edge in edges {
            let row = self.local[0][edge.row as usize] as usize;
            let column = self.local[1][edge.column as usize] as usize;
            let at = if turned { column * columns + row } else { row * columns + column };
            self.dense.gains[at] = f64::from(edge.gain);
        }
        self.dense.solve();
        for column in 0..columns {
            let row = self.dense.row_of[column + 1];
            // A pair without gain is none: both stay alone.
            if row == 0 || self.dense.gains[(row - 1) * columns + column] <= 0.0 {
                continue;
            }
            let (row, column) = if turned { (column, row - 1) } else { (row - 1, column) };
            let (row, column) = (self.members[0][row], self.members[1][column]);
            self.pair(row, column);
        }
    }
}

fn root(parents: &mut [u32], mut node: u32) -> u32 {
    while parents[node as usize] != node {
        // Every second node of the way is hung further up.
        parents[node as usize] = parents[parents[node as usize] as usize];
        node = parents[node as usize];
    }
    node
}

/// One group as a full matrix. Rows and columns count from 1: 0 is "none" and the column
/// that a row's search starts from.
#[derive(Debug, Clone, Default)]
struct Dense {
    rows: usize,
    columns: usize,
    /// 0 where no pair may be.
    gains: Vec<f64>,
    row_of: Vec<usize>,
    /// Prices of rows and columns (dual variables).
    row_price: Vec<f64>,
    column_price: Vec<f64>,
    /// Shortest way so far to each column, and the column before it on that way.
    reach: Vec<f64>,
    before: Vec<usize>,
    done: Vec<bool>,
}

impl Dense {
    fn reset(&mut self, rows: usize, columns: usize) {
        (self.rows, self.columns) = (rows, columns);
        fill(&mut self.gains, rows * columns, 0.0);
        fill(&mut self.row_of, columns + 1, 0);
        fill(&mut self.row_price, rows + 1, 0.0);
        fill(&mut self.column_price, columns + 1, 0.0);
        fill(&mut self.reach, columns + 1, 0.0);
        fill(&mut self.before, columns + 1, 0);
        fill(&mut self.done, columns + 1, false);
    }

    /// Gives every row a column such that the sum of gains is greatest.
    fn solve(&mut self) {
        for row in 1..=self.rows {
            self.reach.fill(f64::INFINITY);
            self.done.fill(false);
            self.row_of[0] = row;
            let mut column = 0;
            // Each round settles one column; there are more columns than settled rows.
            while self.row_of[column] != 0 {
                column = self.step(column);
            }
            while column != 0 {
                let before = self.before[column];
                self.row_of[column] = self.row_of[before];
                column = before;
            }
        }
    }

    /// Settles `column` and returns the nearest column that is not settled.
    fn step(&mut self, column: usize) -> usize {
        self.done[column] = true;
        let row = self.row_of[column];
        let gains = &self.gains[(row - 1) * self.columns..][..self.columns];
        let (mut nearest, mut distance) = (0, f64::INFINITY);
        for next in 1..=self.columns {
            if self.done[next] {
                continue;
            }
            let length = -gains[next - 1] - self.row_price[row] - self.column_price[next];
            if length < self.reach[next] {
                self.reach[next] = length;
                self.before[next] = column;
            }
            if self.reach[next] < distance {
                (nearest, distance) = (next, self.reach[next]);
            }
        }
        for next in 0..=self.columns {
            if self.done[next] {
                self.row_price[self.row_of[next]] += distance;
                self.column_price[next] -= distance;
            } else {
                self.reach[next] -= distance;
            }
        }
        nearest
    }
}

fn fill<T: Clone>(list: &mut Vec<T>, len: usize, value: T) {
    list.clear();
    list.resize(len, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A box of 10 x 10 at that place.
    fn item(index: u32, x: f32, y: f32) -> Item {
        Item { index, class: 0, bbox: [x, y, x + 10.0, y + 10.0], weight: 1.0 }
    }

    fn total(matcher: &Matcher, pairs: &[(u32, u32)], least: f32) -> f32 {
        pairs
            .iter()
            .map(|&(row, column)| {
                let (a, b) = (matcher.rows[row as usize], matcher.columns[column as usize]);
                crate::iou(a.bbox, b.bbox) * b.weight - least
            })
            .sum()
    }

    /// The best sum of all ways to pair, by trying them.
    fn best(matcher: &Matcher, row: usize, taken: &mut Vec<usize>, least: f32) -> f32 {
        let Some(track) = matcher.rows.get(row) else { return 0.0 };
        let mut found = best(matcher, row + 1, taken, least);
        for column in 0..matcher.columns.len() {
            let seen = matcher.columns[column];
            let gain = crate::iou(track.bbox, seen.bbox) - least;
            if gain > 0.0 && seen.class == track.class && !taken.contains(&column) {
                taken.push(column);
                found = found.max(gain + best(matcher, row + 1, taken, least));
                taken.pop();
            }
        }
        found
    }

    #[test]
    fn no_pairing_is_better() {
        let mut random = 1_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % below
        };
        let mut matcher = Matcher::default();
        let mut groups = 0;
        for round in 0..400 {
            let field = 8 + round % 30;
            let mut items = |count: u64| -> Vec<Item> {
                (0..count as u32)
                    .map(|index| Item {
                        class: (next(5) / 4) as u32,
                        ..item(index, next(field) as f32, next(field) as f32)
                    })
                    .collect()
            };
            matcher.rows = items(1 + round % 6);
            matcher.columns = items(1 + round % 5);
            let least = 0.2;
            let pairs = matcher.solve(least).to_vec();
            let want = best(&matcher, 0, &mut Vec::new(), least);
            let have = total(&matcher, &pairs, least);
            assert!((have - want).abs() < 1e-4, "round {round}: {have} for {want}");
            for (at, pair) in pairs.iter().enumerate() {
                assert!(pairs[..at].iter().all(|other| other.0 != pair.0 && other.1 != pair.1));
            }
            groups += usize::from(pairs.len() >= 2);
        }
        assert!(groups > 50, "the scenes are too thin to tell");
    }

    #[test]
    fn the_closest_pair_is_split_where_all_gain_by_it() {
        // The closest pair is (0, 0), which leaves little for the others.
        let mut matcher = Matcher {
            rows: vec![item(0, 0.0, 0.0), item(1, -3.0, 0.0)],
            columns: vec![item(0, -1.0, 0.0), item(1, 2.0, 0.0)],
            ..Matcher::default()
        };
        let mut pairs = matcher.solve(0.2).to_vec();
        pairs.sort_unstable();
        assert_eq!(pairs, [(0, 1), (1, 0)]);
    }

    #[test]
    fn other_classes_and_weak_ones_are_no_pair() {
        let mut matcher = Matcher {
            rows: vec![item(7, 0.0, 0.0)],
            columns: vec![Item { class: 1, ..item(3, 0.0, 0.0) }],
            ..Matcher::default()
        };
        assert_eq!(matcher.solve(0.2), []);
        matcher.columns = vec![Item { weight: 0.15, ..item(3, 0.0, 0.0) }];
        assert_eq!(matcher.solve(0.2), []);
        matcher.columns = vec![item(3, 0.0, 0.0)];
        assert_eq!(matcher.solve(0.2), [(7, 3)]);
    }
}
