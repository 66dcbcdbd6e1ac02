//! `lare`: asks, trains and looks inside vision-language models that reason by looking again.
//!
//! Job: turn arguments into calls of the other crates, and what they return into text, JSON and an exit code.
//!
//! Invariants: nothing prints outside [`messages`]; nothing outside this crate reads the environment. Results go to
//! stdout and everything else to stderr. Exit code 0: done. 1: done, and the answer is no. 2: could not be done.
//! 130: ended by Ctrl-C or SIGTERM with nothing lost.
//!
//! ```text
//! lare ask examples/desk.png "What is written on the object left of the cat?"
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod args;
mod commands;
mod embedded;
mod failure;
mod files;
mod hub;
mod messages;
mod questions;
mod shown;
mod strip;

use args::{Arguments, Command, DataCommand};
use clap::Parser;
use commands::Outcome;
use failure::Failure;
use messages::Messages;
use std::process::ExitCode;

/// candle allocates and frees every intermediate tensor: training is 1.4 times faster than with the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// candle splits some element-wise operations over threads of its own, which then spin for about a millisecond and keep
/// a core from the products that follow. One thread: none of that.
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

fn main() -> ExitCode {
    if std::env::var_os(CANDLE_THREADS).is_none() {
        // SAFETY: no other thread has started that could read the environment.
        unsafe { std::env::set_var(CANDLE_THREADS, "1") }
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() && json_is_asked_for() => {
            Messages::new(true).failure(&Failure::usage(&error));
            return ExitCode::from(2);
        }
        Err(error) => error.exit(),
    };
    match arguments.command {
        // They wait for others: the pool keeps its thread.
        Command::Serve(_) | Command::BenchServe(_) => run(&arguments),
        // Inside the pool: a product that starts on one of its threads needs no other thread to be woken for it.
        _ => rayon::scope(|_| run(&arguments)),
    }
}

fn run(arguments: &Arguments) -> ExitCode {
    let messages = Messages::new(arguments.json);
    let done = match &arguments.command {
        Command::Ask(ask) => commands::ask::run(ask, &messages),
        Command::Dump(dump) => commands::dump::run(dump, &messages),
        Command::Merge(merge) => commands::merge::run(merge, &messages),
        Command::Serve(serve) => commands::serve::run(serve, &messages),
        Command::BenchServe(bench) => commands::bench_serve::run(bench, &messages),
        Command::Train(train) => commands::train::run(train, &messages),
        Command::Eval(eval) => commands::eval::run(eval, &messages),
        Command::MakeData(make) => commands::make_data::run(make, &messages),
        Command::Data(data) => match &data.command {
            DataCommand::Lint(lint) => commands::lint::run(lint, &messages),
        },
        Command::Report(report) => commands::report::run(report, &messages),
        Command::Inspect(inspect) => commands::inspect::run(inspect, &messages),
        Command::Doctor => commands::doctor::run(&messages),
        Command::Completions { shell } => commands::docs::completions(*shell, &messages),
        Command::Man { folder } => commands::docs::man(folder, &messages),
        Command::Docs { page } => commands::docs::page(*page, &messages),
    };
    // A result that could not be written, to a full disk for example, was not given.
    match done.and_then(|outcome| messages.flush().map(|()| outcome)) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::from(1),
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        Err(failure) => {
            messages.failure(&failure);
            ExitCode::from(2)
        }
    }
}

/// Where the arguments are wrong, what the parser made of them is not known.
fn json_is_asked_for() -> bool {
    std::env::args_os().skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json")
}
