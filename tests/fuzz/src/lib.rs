//! Properties that hold for any input, however it was made. A property panics if it does not hold.
//! `it/hostile/fuzz.rs` tries each of them for a moment in every run; `just fuzz` runs one under
//! libFuzzer for as long as wanted.

use domain::request::{Arch, Defaults};

pub mod mutation;

mod api;
mod cursor;
mod event;
mod files;
mod marker;

#[path = "../../../cli/src/request/encoding.rs"]
mod encoding;
#[path = "../../../cli/src/request/lines.rs"]
#[expect(dead_code, reason = "not all of it is tried here")]
mod lines;
#[path = "../../../cli/src/request/project.rs"]
#[expect(dead_code, reason = "not all of it is tried here")]
mod project;

/// A property, and inputs that reach deep into the code it tests.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Panics if the property does not hold.
    pub holds: fn(&[u8]),
    /// The inputs from which others are made.
    pub seeds: &'static [&'static str],
}

/// All targets.
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

/// The defaults of the two places where commands run: AWS and one machine.
fn places() -> [Defaults; 2] {
    [Defaults::aws(), Defaults::one_machine(Arch::X86_64)]
}

/// Checks that a message can be shown on a terminal: text that a user wrote is escaped in it.
#[track_caller]
fn is_fit_for_a_terminal(message: &str) {
    assert!(
        !message.chars().any(|c| c.is_control() && c != '\n'),
        "raw in a message: {message:?}"
    );
}
