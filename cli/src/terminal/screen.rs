//! Standard output and error. Writes whole lines, uses colour only on terminals, and stays quiet
//! when the reader goes away.

use std::{
    cell::{Cell, RefCell},
    io::{self, IsTerminal, Write},
    time::Duration,
};

use domain::execution::ExecutionStatus;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::Notify;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::log::LogForm;
use crate::{failure::Failure, variables::NO_COLOR};

/// The width of a table where the terminal's is not known: the usual 80 columns.
const WIDTH: usize = 80;
const SPIN: Duration = Duration::from_millis(120);

/// Where a text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output, for what was asked for.
    Out,
    /// Standard error, for mycli's own messages.
    Err,
}

/// The stream that a command writes to.
pub(crate) struct Screen {
    /// Whether the user wants no colour.
    plain: bool,
    colored: bool,
    /// The form of the log on standard error.
    log: LogForm,
    spinner: RefCell<Option<ProgressBar>>,
    /// Whether the user is being asked a question. Then no progress is shown.
    asks: Cell<bool>,
    /// Whether the reader of standard output has gone away. Nothing more is written to it then.
    closed: Cell<bool>,
    gone: Notify,
}

struct Asking<'s>(&'s Screen);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.asks.set(false);
    }
}

impl Screen {
    /// Makes a screen. `plain` forbids colour, as a non-empty `NO_COLOR` does. Beside a log of
    /// JSON, mycli's own messages are log lines too.
    pub(crate) fn new(plain: bool, log: LogForm) -> Self {
        let forbidden = plain || std::env::var_os(NO_COLOR).is_some_and(|value| !value.is_empty());
        Self {
            log,
            plain: forbidden,
            colored: !forbidden && io::stdout().is_terminal(),
            spinner: RefCell::new(None),
            asks: Cell::new(false),
            closed: Cell::new(false),
            gone: Notify::new(),
        }
    }

    /// Whether standard error holds a log of JSON, and so no text.
    pub(crate) fn logs_json(&self) -> bool {
        self.log == LogForm::Json
    }

    /// Whether to use colour on that stream.
    pub(crate) fn colors(&self, stream: &impl IsTerminal) -> bool {
        !self.plain && stream.is_terminal()
    }

    /// Writes all of `text` to standard output at once. Does nothing after its reader has gone
    /// away.
    ///
    /// # Errors
    /// Standard output cannot be written, for example because the disk is full.
    pub(crate) fn print(&self, text: &str) -> io::Result<()> {
        self.write(Stream::Out, text)
    }

    /// Writes to `stream`.
    ///
    /// # Errors
    /// Standard output cannot be written. Failures of standard error are ignored.
    pub(crate) fn write(&self, stream: Stream, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let written = self.beside_the_spinner(|| match stream {
            Stream::Out if self.closed.get() => Ok(()),
            Stream::Out => put(&mut io::stdout().lock(), text),
            Stream::Err => put(&mut io::stderr().lock(), text).or(Ok(())),
        });
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed.set(true);
                self.gone.notify_one();
                Ok(())
            }
            other => other,
        }
    }

    /// Whether the reader of standard output has gone away.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Writes a line of mycli's own to standard error.
    pub(crate) fn say(&self, text: &str) {
        if self.logs_json() {
            tracing::info!("{text}");
            return;
        }
        // A failure is ignored: it could only be reported on standard error.
        drop(self.write(Stream::Err, &format!("mycli: {}\n", inert(text))));
    }

    /// Says why mycli failed, with one line for each field at fault.
    pub(crate) fn fail(&self, failure: &Failure) {
        // With MYCLI_LOG=off there is no log, and somebody must be told why it ended.
        if self.logs_json() && tracing::enabled!(tracing::Level::ERROR) {
            let fields = failure.fields().iter().map(ToString::to_string);
            let error = std::iter::once(failure.to_string())
                .chain(fields)
                .chain(failure.advice().map(|advice| advice.to_string()));
            let error = error.collect::<Vec<_>>().join("; ");
            tracing::error!(error, "mycli failed");
            return;
        }
        let fields = failure
            .fields()
            .iter()
            .map(|fault| format!("\n  {fault}"))
            .chain(failure.advice().map(|advice| format!("\n{advice}")));
        // A failure is ignored: there is nowhere left to report it.
        drop(self.write(
            Stream::Err,
            &format!(
                "error: {}{}\n",
                inert(&failure.to_string()),
                inert(&fields.collect::<String>())
            ),
        ));
    }

    /// Resolves once standard output is found to be closed.
    pub(crate) async fn closing(&self) {
        self.gone.notified().await;
    }

    /// Shows what mycli is waiting for, on a terminal only.
    pub(crate) fn progress(&self, text: &str) {
        if self.asks.get() {
            return;
        }
        let mut spinner = self.spinner.borrow_mut();
        if spinner.is_none() && io::stderr().is_terminal() {
            *spinner = Some(new_spinner());
        }
        if let Some(spinner) = spinner.as_ref() {
            spinner.set_message(text.to_owned());
        }
    }

    /// Shows how much of something is done, on a terminal only.
    pub(crate) fn gauge(&self, done: usize, of: usize, text: &str) {
        if self.asks.get() {
            return;
        }
        let mut shown = self.spinner.borrow_mut();
        let is_missing = shown.as_ref().is_none_or(|bar| bar.length().is_none());
        if is_missing
            && io::stderr().is_terminal()
            && let Some(spinner) = shown.replace(new_bar())
        {
            spinner.finish_and_clear();
        }
        if let Some(bar) = shown.as_ref() {
            bar.set_length(u64::try_from(of).unwrap_or(u64::MAX));
            bar.set_position(u64::try_from(done).unwrap_or(u64::MAX));
            bar.set_message(text.to_owned());
        }
    }

    /// Removes the progress, and shows none until the returned value is dropped. Used while a
    /// question is asked.
    pub(crate) fn asking(&self) -> impl Drop + '_ {
        self.no_progress();
        self.asks.set(true);
        Asking(self)
    }

    /// Removes the progress.
    pub(crate) fn no_progress(&self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }

    /// The status, padded to `width`, in its colour.
    pub(crate) fn status(&self, status: &ExecutionStatus, width: usize) -> String {
        let padded = format!("{status:<width$}");
        if !self.colored {
            return padded;
        }
        let color = match status {
            ExecutionStatus::Succeeded => 32,
            ExecutionStatus::Failed | ExecutionStatus::TimedOut | ExecutionStatus::Lost => 31,
            ExecutionStatus::Cancelled => 35,
            ExecutionStatus::Queued | ExecutionStatus::Waiting => 33,
            ExecutionStatus::Launching | ExecutionStatus::Running => 36,
            ExecutionStatus::Other(_) => 31,
        };
        format!("\x1b[{color}m{padded}\x1b[0m")
    }

    /// The number of columns: the terminal's, but at least 80.
    pub(crate) fn width(&self) -> usize {
        let size = rustix::termios::tcgetwinsize(io::stdout());
        size.map(|size| usize::from(size.ws_col))
            .ok()
            .filter(|columns| *columns >= WIDTH)
            .unwrap_or(WIDTH)
    }

    fn beside_the_spinner<T>(&self, write: impl FnOnce() -> T) -> T {
        match self.spinner.borrow().as_ref() {
            Some(spinner) => spinner.suspend(write),
            None => write(),
        }
    }
}

fn put(stream: &mut impl Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

fn new_spinner() -> ProgressBar {
    let spinner = ProgressBar::new_spinner();
    // This constant template parses. If it did not, the default would do.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(SPIN);
    spinner
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    // This constant template parses. If it did not, the default would do.
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {wide_msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(SPIN);
    bar
}

/// Whether a terminal acts on this character instead of showing it, or shows the text after it in
/// another order or on another line.
fn is_obeyed(character: char) -> bool {
    let order = ['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}'];
    let embedding = ('\u{202a}'..='\u{202e}').contains(&character)
        || ('\u{2066}'..='\u{2069}').contains(&character);
    character.is_control() || embedding || order.contains(&character)
}

/// Makes text harmless that may hold other people's, such as a git server's message. Line ends
/// stay; other characters that a terminal acts on are replaced.
fn inert(text: &str) -> String {
    text.chars()
        .map(|c| if c != '\n' && is_obeyed(c) { ' ' } else { c })
        .collect()
}

/// Makes one line of other people's text. Characters that a terminal acts on are replaced, and the
/// line is cut to `width`.
pub(crate) fn one_line(text: &str, width: usize) -> String {
    let clean: String = text
        .trim()
        .chars()
        .map(|c| if is_obeyed(c) { ' ' } else { c })
        .collect();
    if clean.width() <= width {
        return clean;
    }
    let mut used = 0;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used < width
    };
    clean.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_text_is_one_line_of_the_given_width() {
        assert_eq!(one_line("echo a\n\x1b[2Jb", 80), "echo a  [2Jb");
        assert_eq!(one_line("a\u{202e}b\u{2028}c", 80), "a b c");
        assert_eq!(inert("a\x1b]0;x\x07\nb\u{202e}\r"), "a ]0;x \nb  ");
        assert_eq!(
            one_line("terraform plan", 9),
            "terraform"[..8].to_owned() + "…"
        );
        assert_eq!(one_line("日本語", 5), "日本…");
        assert_eq!(one_line("日本語", 6), "日本語");
    }
}
