//! The log of mycli's own process, on standard error. A server always has one; any other command
//! has one with `--verbose`.

use std::{
    io::{self, IsTerminal as _},
    panic,
};

use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterExt as _, FilterFn, LevelFilter, filter_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::variables;

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogForm {
    /// Lines for a person.
    Text,
    /// One JSON object a line, as the functions write it. Standard error then has nothing else.
    Json,
}

impl LogForm {
    /// The form for a command that logs from this level on without being asked to. It is JSON if
    /// standard error is not a terminal, because a program then collects it.
    pub(crate) fn of(own: LevelFilter) -> Self {
        if own != LevelFilter::OFF && !io::stderr().is_terminal() {
            Self::Json
        } else {
            Self::Text
        }
    }
}

/// Returns a filter without the libraries that log headers or the environment of a task, and so
/// secrets. They are off whatever `MYCLI_LOG` says.
fn open_handed() -> FilterFn {
    filter_fn(|metadata| {
        let secretive = ["aws_", "bollard", "h2", "hyper", "reqwest", "rustls"];
        !secretive
            .iter()
            .any(|name| metadata.target().starts_with(name))
    })
}

/// Makes a panic a line of a log of JSON, where the default would write text.
pub(crate) fn tell_panics() {
    panic::set_hook(Box::new(|fault| {
        tracing::error!(error = %fault, "mycli panicked");
    }));
}

/// Begins to log events from this level on: mycli's own, and none of libraries, which may log
/// headers. `MYCLI_LOG` replaces both.
pub(crate) fn begin(form: LogForm, level: LevelFilter, colored: bool) {
    let layer = match form {
        LogForm::Json => logging::json(io::stderr).boxed(),
        LogForm::Text => tracing_subscriber::fmt::layer()
            .with_ansi(colored)
            .with_writer(io::stderr)
            .boxed(),
    };
    let layer = match EnvFilter::try_from_env(variables::LOG) {
        Ok(filter) => layer.with_filter(filter.and(open_handed())).boxed(),
        Err(_) => layer
            .with_filter(logging::filter(level, LevelFilter::OFF))
            .boxed(),
    };
    tracing_subscriber::registry().with(layer).init();
}
