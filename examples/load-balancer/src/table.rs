//! Answers for the eye: columns, each as wide as its widest cell.

/// Lines of text: the names of the columns, then a line for each row.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut lines = vec![header.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>()];
    lines.extend(rows);
    let width = |at: usize| {
        let cells = lines.iter().filter_map(|line: &Vec<String>| line.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let padded = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let text = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", text.trim_end())
    };
    lines.iter().map(padded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["web", "1"], ["höhere", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&["service", "n"], rows), "SERVICE  N\nweb      1\nhöhere\n");
    }
}
