//! A table, as HTML and as Markdown.

use lare_trace::render::html::Text;
use std::fmt::Write as _;

/// Texts longer than this take several lines.
const LONG: usize = 24;

/// Rows under a caption. The first column names them.
pub(super) struct Table {
    /// What it shows, in what units.
    pub caption: String,
    /// Names of the columns.
    pub columns: Vec<Column>,
    /// As many cells each as there are columns.
    pub rows: Vec<Row>,
}

/// A column of numbers or of words.
pub(super) struct Column {
    name: String,
    numbers: bool,
}

/// A row.
pub(super) struct Row {
    cells: Vec<Cell>,
    /// Whether it is the sum of those above it, or stands apart from them in another way.
    apart: bool,
}

/// A cell.
#[derive(Default)]
pub(super) struct Cell {
    text: String,
    note: String,
    strong: bool,
    code: bool,
}

impl Column {
    /// Of words, set to the left.
    pub fn words(name: impl Into<String>) -> Self {
        Self { name: name.into(), numbers: false }
    }

    /// Of numbers, set to the right.
    pub fn numbers(name: impl Into<String>) -> Self {
        Self { name: name.into(), numbers: true }
    }
}

impl Row {
    /// One of many.
    pub fn of(cells: Vec<Cell>) -> Self {
        Self { cells, apart: false }
    }

    /// Set apart from those above it.
    pub fn apart(cells: Vec<Cell>) -> Self {
        Self { cells, apart: true }
    }
}

impl Cell {
    /// Words or a number.
    pub fn of(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// A command or a hash.
    pub fn code(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: true, ..Self::default() }
    }

    /// Adds what stands beside it in smaller letters.
    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// Sets it off.
    pub fn strong(self, strong: bool) -> Self {
        Self { strong, ..self }
    }

    fn html(&self) -> String {
        let text = Text(&self.text);
        let text = match (self.code, self.strong) {
            (true, _) => format!("<code>{text}</code>"),
            (_, true) => format!("<b>{text}</b>"),
            _ => text.to_string(),
        };
        // Room enough to be read in, where the page is narrow.
        let text = if self.text.len() > LONG { format!("<span class=\"long\">{text}</span>") } else { text };
        if self.note.is_empty() { text } else { format!("{text} <span class=\"note\">{}</span>", Text(&self.note)) }
    }

    fn markdown(&self) -> String {
        let text = plain(&self.text);
        let text = match (self.code, self.strong) {
            (true, _) => format!("`{text}`"),
            (_, true) => format!("**{text}**"),
            _ => text,
        };
        if self.note.is_empty() { text } else { format!("{text} {}", plain(&self.note)) }
    }
}

/// Text that neither ends a cell of Markdown nor becomes markup.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '|' | '`' | '*' | '_' | '\\' => out.extend(['\\', sign]),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            sign if sign.is_whitespace() => out.push(' '),
            sign => out.push(sign),
        }
    }
    out
}

/// A number stays on one line with its sign of percent.
pub(super) fn unbroken(text: &str) -> String {
    text.replace(" %", "\u{a0}%")
}

impl Table {
    /// As HTML. A table wider than the page scrolls by itself, with the keyboard too.
    pub fn html(&self) -> String {
        let caption = unbroken(&self.caption);
        let caption = Text(&caption);
        let mut html = format!(
            "<figure class=\"table\">\n<figcaption>{caption}</figcaption>\n<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\">\n<table>\n<thead><tr>"
        );
        for column in &self.columns {
            // Writing to a String cannot fail.
            let _ = write!(html, "<th scope=\"col\"{}>{}</th>", class(column), Text(&column.name));
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            html.push_str(if row.apart { "<tr class=\"apart\">" } else { "<tr>" });
            for (place, (cell, column)) in row.cells.iter().zip(&self.columns).enumerate() {
                let (open, close) = if place == 0 { ("th scope=\"row\"", "th") } else { ("td", "td") };
                let _ = write!(html, "<{open}{}>{}</{close}>", class(column), cell.html());
            }
            html.push_str("</tr>\n");
        }
        html + "</tbody>\n</table>\n</div>\n</figure>\n"
    }

    /// As Markdown, the caption above it.
    pub fn markdown(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|column| plain(&column.name)).collect();
        let rules = self.columns.iter().map(|column| if column.numbers { "---:" } else { "---" });
        let mut text = format!("{}\n\n{}\n", plain(&self.caption), line(&names));
        text += &format!("|{}|\n", rules.collect::<Vec<_>>().join("|"));
        for row in &self.rows {
            text += &format!("{}\n", line(&row.cells.iter().map(Cell::markdown).collect::<Vec<_>>()));
        }
        text
    }
}

fn class(column: &Column) -> &'static str {
    if column.numbers { " class=\"number\"" } else { "" }
}

fn line(cells: &[String]) -> String {
    format!("| {} |", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        Table {
            caption: text.into(),
            columns: vec![Column::words(text), Column::numbers("right")],
            rows: vec![
                Row::of(vec![Cell::of(text), Cell::of("1.0").note("[0.5, 2.0]")]),
                Row::apart(vec![Cell::of("all"), Cell::of("2.0").strong(true)]),
            ],
        }
    }

    #[test]
    fn text_cannot_become_markup_nor_leave_its_cell() {
        let attack = "<script>alert(1)</script>\" onload=\"x|y`z\n# head";
        let html = table(attack).html();
        assert!(!html.contains("<script>") && !html.contains("\" onload=\""), "{html}");
        let markdown = table(attack).markdown();
        assert!(!markdown.contains("<script>") && !markdown.contains("\n#"), "{markdown}");
        let rows: Vec<&str> = markdown.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 4, "{markdown}");
        assert!(rows.iter().all(|row| row.replace("\\|", "").matches('|').count() == 3), "{markdown}");
    }

    #[test]
    fn numbers_are_set_to_the_right_and_rows_have_names() {
        let html = table("task").html();
        assert!(
            html.contains("<th scope=\"row\">task</th><td class=\"number\">1.0 <span class=\"note\">[0.5, 2.0]</span>")
        );
        assert!(html.contains("<tr class=\"apart\"><th scope=\"row\">all</th><td class=\"number\"><b>2.0</b></td>"));
        assert_eq!(
            table("task").markdown(),
            "task\n\n| task | right |\n|---|---:|\n| task | 1.0 [0.5, 2.0] |\n| all | **2.0** |\n"
        );
    }
}
