//! Tables and figures as text.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Blanks between two columns.
const GAP: usize = 2;

/// A column of a table that has to fit a terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column<'a> {
    title: &'a str,
    rank: u8,
    least: Option<usize>,
}

impl<'a> Column<'a> {
    /// A column whose title starts with `>` is aligned to the right. Where the
    /// width does not suffice, columns of the highest rank are left out first;
    /// those of rank 0 stay.
    pub(crate) fn new(title: &'a str, rank: u8) -> Self {
        Self { title, rank, least: None }
    }

    /// Lets long cells be cut to `least` characters before a column is left out.
    pub(crate) fn least(self, least: usize) -> Self {
        Self { least: Some(least), ..self }
    }
}

/// A table without lines: columns are separated by two spaces. Columns whose
/// header starts with `>` are aligned to the right.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let columns: Vec<Column<'_>> = header.iter().map(|title| Column::new(title, 0)).collect();
    fitted(&columns, rows, usize::MAX)
}

/// As [`table()`], in at most `width` characters a line as far as ranks and cuts
/// make that possible.
pub(crate) fn fitted(columns: &[Column<'_>], rows: Vec<Vec<String>>, width: usize) -> String {
    let shown = shown(columns, &rows, width);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(shown.iter().map(|(index, _)| columns[*index].title.trim_start_matches('>')));
    for row in rows {
        table.add_row(shown.iter().map(|(index, width)| cut(&row[*index], *width)));
    }
    for (place, (index, _)) in shown.iter().enumerate() {
        if let Some(column) = table.column_mut(place) {
            column.set_padding((0, GAP as u16));
            if columns[*index].title.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.trim_fmt()
}

/// Whether [`fitted`] would leave nothing out.
pub(crate) fn fits(columns: &[Column<'_>], rows: &[Vec<String>], width: usize) -> bool {
    let natural =
        (0..columns.len()).map(|index| natural(columns, rows, index) + GAP).sum::<usize>();
    natural.saturating_sub(GAP) <= width
}

/// The columns that there is room for, and how wide each may be.
fn shown(columns: &[Column<'_>], rows: &[Vec<String>], width: usize) -> Vec<(usize, usize)> {
    let natural: Vec<usize> = (0..columns.len()).map(|i| natural(columns, rows, i)).collect();
    let least = |index: usize| {
        let title = columns[index].title.trim_start_matches('>').chars().count();
        columns[index].least.map_or(natural[index], |least| natural[index].min(least.max(title)))
    };
    let mut shown: Vec<(usize, usize)> = (0..columns.len()).map(|i| (i, least(i))).collect();
    let needed = |shown: &[(usize, usize)]| {
        shown.iter().map(|(_, width)| width + GAP).sum::<usize>().saturating_sub(GAP)
    };
    while needed(&shown) > width {
        // The last one of the highest rank.
        let rank = |place: &usize| (columns[shown[*place].0].rank, *place);
        match (0..shown.len()).max_by_key(rank) {
            Some(place) if columns[shown[place].0].rank > 0 => shown.remove(place),
            _ => break,
        };
    }
    let mut spare = width.saturating_sub(needed(&shown));
    let mut by_rank: Vec<usize> = (0..shown.len()).collect();
    by_rank.sort_by_key(|place| columns[shown[*place].0].rank);
    for place in by_rank {
        let (index, width) = &mut shown[place];
        let more = spare.min(natural[*index] - *width);
        *width += more;
        spare -= more;
    }
    shown
}

fn natural(columns: &[Column<'_>], rows: &[Vec<String>], index: usize) -> usize {
    let title = columns[index].title.trim_start_matches('>');
    let cells = rows.iter().map(|row| row[index].chars().count());
    cells.max().unwrap_or(0).max(title.chars().count())
}

/// At most `width` characters; what was cut off shows as `…`.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// What stands where there is no figure.
pub(crate) const NONE: &str = "-";

/// `12.3`, and more digits for small ones: milliseconds, rates.
pub(crate) fn figure(value: Option<f64>) -> String {
    match value {
        None => NONE.to_owned(),
        Some(value) if value < 0.095 => format!("{value:.3}"),
        Some(value) if value < 9.95 => format!("{value:.2}"),
        Some(value) if value < 99.95 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// `12.3/45.6`.
pub(crate) fn pair(first: Option<f64>, second: Option<f64>) -> String {
    match (first, second) {
        (None, None) => NONE.to_owned(),
        _ => format!("{}/{}", figure(first), figure(second)),
    }
}

/// `1920x1080`.
pub(crate) fn size(width: u32, height: u32) -> String {
    if width == 0 || height == 0 { NONE.to_owned() } else { format!("{width}x{height}") }
}

/// `missed 3, stale 1`.
pub(crate) fn causes(drops: &[(&str, u64)]) -> String {
    if drops.is_empty() {
        return NONE.to_owned();
    }
    let parts: Vec<String> = drops.iter().map(|(cause, n)| format!("{cause} {n}")).collect();
    parts.join(", ")
}

/// `12.5 MiB`.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_line_up_without_trailing_blanks() {
        let rows = vec![row(&["front", "30.0", "x"]), row(&["b", "5", "long text"])];
        let text = table(&["camera", ">fps", "why"], rows);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines, ["camera   fps  why", "front   30.0  x", "b          5  long text"]);
    }

    #[test]
    fn the_least_important_columns_go_first_and_long_cells_are_cut() {
        let columns = [
            Column::new("camera", 0),
            Column::new("size", 2),
            Column::new(">fps", 1),
            Column::new("drops", 1).least(10),
        ];
        let rows = vec![row(&["front", "1920x1080", "30.0", "missed 10, superseded 20, stale 30"])];
        let at = |width| {
            let text = fitted(&columns, rows.clone(), width);
            text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(at(200)[1], "front   1920x1080  30.0  missed 10, superseded 20, stale 30");
        assert!(fits(&columns, &rows, 59) && !fits(&columns, &rows, 58));
        assert_eq!(at(58)[1], "front   1920x1080  30.0  missed 10, superseded 20, stale…");
        // Room for every column, as long as the causes are cut.
        assert_eq!(at(35)[1], "front   1920x1080  30.0  missed 10…");
        assert_eq!(at(34), ["camera   fps  drops", "front   30.0  missed 10, supersed…"]);
        assert_eq!(at(20), ["camera   fps", "front   30.0"]);
        assert_eq!(at(3), ["camera", "front"], "rank 0 stays");
        for width in 6..=60 {
            assert!(at(width).iter().all(|line| line.chars().count() <= width), "{width}");
        }
    }

    #[test]
    fn figures_keep_three_digits() {
        for (value, text) in
            [(0.0042, "0.004"), (0.5, "0.50"), (9.96, "10.0"), (12.34, "12.3"), (1234.5, "1234")]
        {
            assert_eq!(figure(Some(value)), text);
        }
        assert_eq!(pair(None, None), "-");
        assert_eq!(pair(Some(1.0), None), "1.00/-");
        assert_eq!(size(0, 5), "-");
        assert_eq!(causes(&[("missed", 3), ("stale", 1)]), "missed 3, stale 1");
    }
}
