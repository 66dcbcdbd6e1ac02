//! The page, and its tables as Markdown.

use super::number::{counted, percent, range, short};
use super::sections::Section;
use super::table::plain;
use super::{Report, Run};
use lare_trace::render::html::{self, Text};

/// The look of the page.
const STYLE: &str = include_str!("report.css");
/// What wrote it.
const PROGRAM: &str = concat!("lare ", env!("CARGO_PKG_VERSION"));

/// The gallery, for the page: its name in links, its heading, and what stands below.
pub(super) struct Gallery {
    /// The cards; empty where no trace was kept.
    pub html: String,
}

impl Gallery {
    const ID: &'static str = "gallery";
    const TITLE: &'static str = "Answers, right and not right";

    fn section(&self) -> String {
        if self.html.is_empty() {
            return String::new();
        }
        let (id, title) = (Self::ID, Self::TITLE);
        format!(
            "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{title}</h2>\n{}</section>\n",
            self.html
        )
    }
}

/// The whole page.
pub(super) fn html(report: &Report, sections: &[Section], gallery: &Gallery) -> String {
    let title = title(&report.runs);
    let links = sections.iter().map(|section| (section.id, section.title));
    let links = links.chain((!gallery.html.is_empty()).then_some((Gallery::ID, Gallery::TITLE)));
    let links: String = links.map(|(id, title)| format!("<li><a href=\"#{id}\">{}</a></li>", Text(title))).collect();
    let body: String = sections.iter().map(Section::html).collect();
    format!(
        r##"{head}<a class="skip" href="#main">To the results</a>
<header>
<p class="kind">Evaluation</p>
<h1>{title}</h1>
<ul class="facts">
{facts}</ul>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main id="main">
{body}{gallery}</main>
<footer>{PROGRAM}</footer>
</body>
</html>
"##,
        head = html::head(&title, STYLE, false),
        title = Text(&title),
        facts = facts(&report.runs),
        gallery = gallery.section(),
    )
}

/// The tables of all sections.
pub(super) fn markdown(report: &Report, sections: &[Section]) -> String {
    let tables: Vec<String> = sections.iter().filter_map(Section::markdown).collect();
    format!("# Evaluation: {}\n\n{}", plain(&title(&report.runs)), tables.join("\n"))
}

/// What the report is about.
fn title(runs: &[Run]) -> String {
    let models: Vec<&str> = once(runs.iter().map(|run| run.settings.model.as_str()));
    let questions = once(runs.iter().map(|run| run.settings.items.name()));
    let on = questions.join(", ");
    match (&models[..], runs.len()) {
        ([], _) => "no runs".to_owned(),
        ([model], 1) => format!("{model} on {on}"),
        ([model], count) => format!("{model} on {on}, {}", counted(count, "run")),
        (models, count) => format!("{} of {} models on {on}", counted(count, "run"), models.len()),
    }
}

/// Each once, in order.
fn once<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut kept = Vec::new();
    for one in all {
        if !kept.contains(&one) {
            kept.push(one);
        }
    }
    kept
}

/// The first numbers that a reader asks for.
fn facts(runs: &[Run]) -> String {
    let fact = |run: &Run| {
        let (right, _) = run.right();
        format!(
            "<li><b>{} %</b> right <span class=\"note\">{}</span> {}<code title=\"SHA-256 of the weights\">{}</code></li>\n",
            percent(right.value),
            Text(&range(&right)),
            if runs.len() > 1 { format!("{} ", Text(&run.label)) } else { String::new() },
            Text(&short(&run.settings.weights_hash))
        )
    };
    runs.iter().map(fact).collect()
}
