//! Collected costs as a table.

use std::collections::BTreeMap;

/// Nanoseconds a packet of every turn, by row and column; or why there are none.
#[derive(Debug, Default)]
pub struct Table {
    cells: BTreeMap<(usize, usize), Cell>,
}

#[derive(Debug)]
enum Cell {
    Turns(Vec<f64>),
    Refused(String),
}

impl Table {
    /// Adds one turn. Once refused, a cell stays so.
    pub fn add(&mut self, row: usize, column: usize, turn: Result<f64, String>) {
        match (
            self.cells.entry((row, column)).or_insert(Cell::Turns(Vec::new())),
            turn,
        ) {
            (Cell::Turns(turns), Ok(ns)) => turns.push(ns),
            (cell, Err(reason)) => *cell = Cell::Refused(reason),
            (Cell::Refused(_), Ok(_)) => {}
        }
    }

    /// Whether the kernel has refused it: no need to ask again.
    pub fn is_refused(&self, row: usize, column: usize) -> bool {
        matches!(self.cells.get(&(row, column)), Some(Cell::Refused(_)))
    }

    /// The table in Markdown: median, smallest and largest of the turns.
    pub fn print(&self, title: &str, columns: &[String], rows: &[&str]) {
        println!(
            "\n| {title} | {} |\n|---|{}",
            columns.join(" | "),
            "---|".repeat(columns.len())
        );
        for (row, name) in rows.iter().enumerate() {
            let cells: Vec<_> = (0..columns.len()).map(|column| self.cell(row, column)).collect();
            println!("| {name} | {} |", cells.join(" | "));
        }
    }

    fn cell(&self, row: usize, column: usize) -> String {
        match self.cells.get(&(row, column)) {
            Some(Cell::Turns(turns)) if !turns.is_empty() => {
                let mut turns = turns.clone();
                turns.sort_by(f64::total_cmp);
                let (least, most) = (turns[0], turns[turns.len() - 1]);
                format!(
                    "{:.2} ({:.2}-{:.2})",
                    turns[turns.len() / 2] / 1e3,
                    least / 1e3,
                    most / 1e3
                )
            }
            Some(Cell::Refused(reason)) => format!("refused: {reason}"),
            _ => "not measured".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_the_median_or_the_refusal() {
        let mut table = Table::default();
        for ns in [3000.0, 1000.0, 2000.0] {
            table.add(0, 0, Ok(ns));
        }
        table.add(1, 0, Ok(1000.0));
        table.add(1, 0, Err("no".into()));
        table.add(1, 0, Ok(1000.0));
        assert_eq!((table.is_refused(0, 0), table.is_refused(1, 0)), (false, true));
        assert_eq!(table.cell(0, 0), "2.00 (1.00-3.00)");
        assert_eq!(table.cell(1, 0), "refused: no");
        assert_eq!(table.cell(0, 1), "not measured");
    }
}
