//! The log of mycli's own process, on standard error. A server always has one; any other command
//! has one with `--verbose`.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{
    EnvFilter, Layer as _, filter::LevelFilter, layer::SubscriberExt as _,
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
        // These are off whatever `MYCLI_LOG` says. `bollard` and `hyper` would log a task's
        // environment, and so its secrets.
        Ok(filter) => layer
            .with_filter(
                ["bollard=off", "hyper=off", "aws_=off"]
                    .into_iter()
                    .flat_map(str::parse)
                    .fold(filter, EnvFilter::add_directive),
            )
            .boxed(),
        Err(_) => layer
            .with_filter(logging::filter(level, LevelFilter::OFF))
            .boxed(),
    };
    tracing_subscriber::registry().with(layer).init();
}
