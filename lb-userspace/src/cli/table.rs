//! Tables without lines: columns two spaces apart, numbers to the right, wrapped to the terminal if there is one.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};

use super::screen::{Colour, Screen};
use super::units::{self, clean};

/// A table under construction; cells are added row by row.
pub(super) struct Rows<'a> {
    screen: &'a Screen,
    table: Table,
}

/// One cell.
pub(super) enum Field {
    /// To the left.
    Text(String),
    /// To the left, in a colour.
    Coloured(String, Colour),
    /// To the right, with separators.
    Count(u64),
    /// To the right, as bytes.
    Bytes(u64),
    /// To the right, in seconds.
    Took(Duration),
}

impl<'a> Rows<'a> {
    /// A table with these column titles; one that begins with `>` is set to the right, as numbers are.
    pub(super) fn new(screen: &'a Screen, titles: &[&str]) -> Self {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(titles.iter().map(|title| match title.strip_prefix('>') {
            Some(title) => Cell::new(title).set_alignment(CellAlignment::Right),
            None => Cell::new(title),
        }));
        Self { screen, table }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, fields: impl IntoIterator<Item = Field>) {
        let cells = fields.into_iter().map(|field| match field {
            Field::Text(text) => Cell::new(clean(&text)),
            Field::Coloured(text, colour) if self.screen.colour() => {
                Cell::new(clean(&text)).fg(match colour {
                    Colour::Good => Color::Green,
                    Colour::Notice => Color::Yellow,
                    Colour::Bad => Color::Red,
                })
            }
            Field::Coloured(text, _) => Cell::new(clean(&text)),
            Field::Count(number) => Cell::new(units::count(number)).set_alignment(CellAlignment::Right),
            Field::Took(took) => {
                Cell::new(format!("{:.3} s", took.as_secs_f64())).set_alignment(CellAlignment::Right)
            }
            Field::Bytes(number) => Cell::new(units::bytes(number)).set_alignment(CellAlignment::Right),
        });
        self.table.add_row(cells.collect::<Vec<_>>());
    }

    /// The table's lines, each indented by `indent` spaces.
    pub(super) fn text(mut self, indent: usize) -> String {
        let margin = u16::try_from(indent).unwrap_or(0);
        for (index, column) in self.table.column_iter_mut().enumerate() {
            column.set_padding((if index == 0 { margin } else { 0 }, 2));
        }
        self.table.trim_fmt() + "\n"
    }
}

/// Shorthand for a text cell.
pub(super) fn text(text: impl Into<String>) -> Field {
    Field::Text(text.into())
}
