//! The only file that prints.
//!
//! Results go to stdout and survive a pipe: with `--json` they are objects, one a line. Everything else goes to
//! stderr, with `--json` as objects too, and makes sense without colour. A reader that closes the pipe early ends the
//! output and nothing else; a disk that is full is an error, because the result was not given. A bar steps aside for
//! whatever is written while it is shown.

use crate::args::LogLevel;
use crate::failure::Failure;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::time::{Duration, Instant};
use tracing_subscriber::filter::LevelFilter;

/// What a command found out, in both forms.
pub trait Report {
    /// For people.
    fn text(&self) -> String;
    /// For programs.
    fn json(&self) -> Value;
}

/// How this run talks.
pub struct Messages {
    json: bool,
    colour: bool,
    live: bool,
    bars: MultiProgress,
}

/// A task of known length.
const BAR: &str = "{bar:32} {pos}/{len}  {eta} left  {msg}";
/// A task of unknown length.
const SPINNER: &str = "{spinner} {msg}  {elapsed}";
/// Time between two lines of progress where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Messages {
    /// Looks at the terminal and at `NO_COLOR`.
    pub fn new(json: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::on(json, terminal && !plain, terminal && !json)
    }

    fn on(json: bool, colour: bool, live: bool) -> Self {
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { json, colour, live, bars: MultiProgress::with_draw_target(target) }
    }

    /// Whether results are JSON.
    pub fn wants_json(&self) -> bool {
        self.json
    }

    /// Gives a result, in the form that was asked for.
    pub fn report(&self, report: &dyn Report) -> Result<(), Failure> {
        match self.json {
            true => self.result(&report.json().to_string()),
            false => self.result(report.text().trim_end_matches('\n')),
        }
    }

    /// Gives a result as it is, and ends the line.
    pub fn result(&self, text: &str) -> Result<(), Failure> {
        given(self.bars.suspend(|| writeln!(io::stdout().lock(), "{text}")))
    }

    /// Makes sure that what was given has arrived.
    pub fn flush(&self) -> Result<(), Failure> {
        given(io::stdout().lock().flush())
    }

    /// Says what a person may want to know; silent with `--json`.
    pub fn note(&self, text: &str) {
        if !self.json {
            self.say(text);
        }
    }

    /// Says what should be known; with `--json` as one object on stderr.
    pub fn warning(&self, text: &str) {
        match self.json {
            true => self.say(&json!({ "warning": text }).to_string()),
            false => self.say(&format!("{} {text}", self.paint("33", "warning:"))),
        }
    }

    /// Says why something could not be done; with `--json` as one object on stderr.
    pub fn failure(&self, failure: &Failure) {
        match self.json {
            true => self.say(&failure.json().to_string()),
            false => self.say(&self.rendered(failure)),
        }
    }

    /// Shows how far a long task is: a bar on a terminal, a line now and then elsewhere, nothing with `--json`.
    /// Without `total` the bar only turns.
    pub fn progress(&self, what: &str, total: Option<u64>) -> Progress {
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style(BAR)),
            None => ProgressBar::new_spinner().with_style(style(SPINNER)),
        };
        let bar = self.bars.add(bar);
        bar.set_message(what.to_owned());
        if self.live {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        Progress { bar, lines: !self.live && !self.json, last_line: None, first: None }
    }

    /// From now on what libraries tell as it happens is written to stderr, a line each; with `--json` an object each.
    pub fn log(&self, level: LogLevel) {
        let level = match level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
        };
        let log = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
        // A second log beside the first: there is one command a process, so there is none.
        drop(match self.json {
            true => log.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
            false => log.with_ansi(self.colour).try_init(),
        });
    }

    /// A line on stderr, above the bar if there is one.
    fn say(&self, text: &str) {
        self.bars.suspend(|| say(text));
    }

    fn rendered(&self, failure: &Failure) -> String {
        let mut text = format!("{} {}", self.paint("1;31", "error:"), failure.summary);
        for part in &failure.parts {
            text.push_str(&format!("\n  {part}"));
        }
        if let Some(hint) = &failure.hint {
            text.push_str(&format!("\n\n{} {hint}", self.paint("36", "hint:")));
        }
        text
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// How far a long task is.
pub struct Progress {
    bar: ProgressBar,
    lines: bool,
    last_line: Option<Instant>,
    /// When progress was first told, and how far the task was: one that goes on does not start at 0.
    first: Option<(Instant, u64)>,
}

impl Progress {
    /// Moves the bar, or prints a line when one is due.
    pub fn at(&mut self, done: u64, status: impl Into<String>) {
        let status = status.into();
        if self.first.is_none() {
            self.bar.set_position(done);
            self.bar.reset_eta();
        }
        let (since, from) = *self.first.get_or_insert((Instant::now(), done));
        let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if self.lines && due {
            let of = self.bar.length().map(|total| {
                let left = remaining(since.elapsed(), done - from.min(done), total.saturating_sub(done));
                format!("{done}/{total}  {}", left.map(|left| format!("{left} left  ")).unwrap_or_default())
            });
            say(&format!("{}{status}", of.unwrap_or_default()));
            self.last_line = Some(Instant::now());
        }
        self.bar.set_position(done);
        self.bar.set_message(status);
    }

    /// Says something that stays above the bar.
    pub fn note(&self, text: &str) {
        if self.lines {
            say(text);
        } else {
            self.bar.println(text);
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// The time that `left` parts will take if they go as those `done` so far.
fn remaining(elapsed: Duration, done: u64, left: u64) -> Option<String> {
    let seconds = elapsed.as_secs_f64() * left as f64 / done as f64;
    seconds.is_finite().then(|| indicatif::HumanDuration(Duration::from_secs_f64(seconds.min(1e9))).to_string())
}

/// `template` is one of this file's own.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A line on stderr. Nobody is left to tell when that fails.
fn say(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// A pipe that its reader closed is no failure.
fn given(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            let hint = match error.kind() {
                ErrorKind::StorageFull => "free some space, or write elsewhere",
                _ => "write elsewhere",
            };
            Err(Failure::new("the result could not be written to stdout").part("got", error).hint(hint))
        }
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Messages {
        Messages::on(false, false, false)
    }

    #[test]
    fn an_error_names_the_thing_its_parts_and_the_way_out() {
        let failure = Failure::new("`x` is wrong").part("expected", 1).part("got", 2).hint("say 1");
        assert_eq!(plain().rendered(&failure), "error: `x` is wrong\n  expected  1\n  got       2\n\nhint: say 1");
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let failure = Failure::new("`x` is wrong").hint("say 1");
        let painted = Messages { colour: true, ..plain() }.rendered(&failure);
        let bare: String =
            painted.split('\x1b').map(|part| part.split_once('m').map_or(part, |(_, text)| text)).collect();
        assert_eq!(bare, plain().rendered(&failure));
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is() {
        assert_eq!(given(Err(ErrorKind::BrokenPipe.into())), Ok(()));
        assert!(given(Err(ErrorKind::StorageFull.into())).is_err());
    }

    #[test]
    fn what_is_left_goes_as_what_was_done() {
        assert_eq!(remaining(Duration::from_secs(60), 10, 20).as_deref(), Some("2 minutes"));
        assert_eq!(remaining(Duration::from_secs(60), 0, 20), None);
    }

    #[test]
    fn every_progress_style_is_valid() {
        for template in [BAR, SPINNER] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
