//! What holds for any input, however it was made. Each property panics where it does not hold;
//! `it/hostile/fuzz.rs` tries each for a moment in every run, `just fuzz` by libFuzzer for as long
//! as is wanted.

use domain::request::{Arch, Defaults};

pub mod mutation;

mod api;
mod cursor;
mod event;
mod files;
mod marker;

#[path = "../../../cli/src/encoding.rs"]
mod encoding;
#[path = "../../../cli/src/bulk/lines.rs"]
#[expect(dead_code, reason = "not all of it is tried here")]
mod lines;
#[path = "../../../cli/src/project.rs"]
#[expect(dead_code, reason = "not all of it is tried here")]
mod project;

/// A property, and inputs that reach deep into what it is about.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// For the command line.
    pub name: &'static str,
    /// Panics where the property does not hold.
    pub holds: fn(&[u8]),
    /// What others are made from.
    pub seeds: &'static [&'static str],
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "request",
        holds: api::request,
        seeds: api::REQUESTS,
    },
    Target {
        name: "bulk",
        holds: api::bulk,
        seeds: api::BULKS,
    },
    Target {
        name: "project",
        holds: files::project,
        seeds: files::PROJECTS,
    },
    Target {
        name: "lines",
        holds: files::lines,
        seeds: files::LINES,
    },
    Target {
        name: "event",
        holds: event::event,
        seeds: event::EVENTS,
    },
    Target {
        name: "history-cursor",
        holds: cursor::history,
        seeds: cursor::HISTORY,
    },
    Target {
        name: "log-cursor",
        holds: cursor::log,
        seeds: cursor::LOG,
    },
    Target {
        name: "marker",
        holds: marker::marker,
        seeds: marker::LINES,
    },
];

/// The two places where commands run.
fn places() -> [Defaults; 2] {
    [Defaults::aws(), Defaults::one_machine(Arch::X86_64)]
}

/// A message is text of ours, fit for a terminal: what a user wrote is escaped in it.
#[track_caller]
fn is_fit_for_a_terminal(message: &str) {
    assert!(
        !message.chars().any(|c| c.is_control() && c != '\n'),
        "raw in a message: {message:?}"
    );
}
