//! Tables and figures as text.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// A table without lines: columns are separated by two spaces. Columns whose
/// header starts with `>` are aligned to the right.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|text| text.trim_start_matches('>')));
    for row in rows {
        table.add_row(row);
    }
    for (index, text) in header.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if text.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.trim_fmt()
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

    #[test]
    fn columns_line_up_without_trailing_blanks() {
        let rows = vec![
            vec!["front".to_owned(), "30.0".to_owned(), "x".to_owned()],
            vec!["b".to_owned(), "5".to_owned(), "long text".to_owned()],
        ];
        let text = table(&["camera", ">fps", "why"], rows);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines, ["camera   fps  why", "front   30.0  x", "b          5  long text"]);
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
