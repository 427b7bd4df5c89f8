//! Rows of cells as lines of text, in columns.

use std::fmt::{self, Write};

/// As many items of a list are in a cell; of the others, the number is.
const ITEMS: usize = 3;

/// One line for each row.
pub(crate) fn print<const N: usize>(rows: &[[String; N]]) -> String {
    let mut text = String::new();
    let widths = widths(rows);
    for row in rows {
        write_row(&mut text, row, widths).expect("a string takes all text");
    }
    text
}

/// The first few of a list.
pub(crate) fn some(items: &[String]) -> String {
    let mut text = items.iter().take(ITEMS).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = items.len().checked_sub(ITEMS) {
        text += &format!(" and {more} more");
    }
    text
}

fn widths<const N: usize>(rows: &[[String; N]]) -> [usize; N] {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    widths
}

fn write_row<const N: usize>(
    text: &mut String,
    row: &[String; N],
    widths: [usize; N],
) -> fmt::Result {
    let start = text.len();
    for (cell, width) in row.iter().zip(widths) {
        write!(text, "{cell:width$}  ")?;
    }
    text.truncate(start + text[start..].trim_end().len());
    text.push('\n');
    Ok(())
}
