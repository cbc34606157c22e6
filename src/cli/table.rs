//! Plain-text tables.

/// Lays out rows under a header, columns two spaces apart; all but the first column are right-aligned.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (column, cell) in cells.take(widths.len()).enumerate() {
            let width = widths[column];
            match column {
                0 => text.push_str(&format!("{cell:width$}")),
                _ => text.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.trim_end().to_owned()
    };
    let rule = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
    let mut lines = vec![line(&mut header.iter().copied()), "-".repeat(rule)];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["contextual".to_owned(), ".25".to_owned()], vec!["é".to_owned(), ".1234".to_owned()]];
        assert_eq!(
            super::table(&["arm", "R@10"], &rows),
            "arm          R@10\n-----------------\ncontextual    .25\né           .1234"
        );
    }
}
