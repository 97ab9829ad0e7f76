//! Columns aligned for people.
use std::fmt::Write as _;

/// Rows under a header; every cell is one line of text.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self { rows: vec![header.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// Three spaces between columns, as kubectl does; each line is indented by `indent` spaces.
    pub(crate) fn render(&self, indent: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(indent);
            for (cell, width_of_column) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell}{}", " ".repeat(width_of_column - width(cell) + 3));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_trimmed() {
        let mut table = Table::new(&["NAME", "CPUS"]);
        assert!(table.is_empty());
        table.row(["a-long-name".into(), "4".into()]);
        table.row(["b".into(), String::new()]);
        assert_eq!(table.render(2), "  NAME          CPUS\n  a-long-name   4\n  b\n");
    }
}
