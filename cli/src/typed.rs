//! What the user types: a secret without showing it, and answers to questions.

use std::io::{self, BufRead, IsTerminal, Read};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;

use crate::{context::Context, failure::Failure};

/// Longest value that is read. Ours: far above what any secret store takes.
const VALUE_MAX: u64 = 1 << 20;

/// A line of standard input; on a terminal it is asked for with `prompt`, and not shown.
///
/// # Errors
/// Standard input's.
pub(crate) fn secret_line(context: &Context, prompt: &str) -> Result<SecretString, Failure> {
    line_unseen(context, prompt).map(SecretString::from).map_err(Failure::io("read standard input"))
}

/// A value: a line that is typed unseen, or all of standard input but for the line end after it.
///
/// # Errors
/// Standard input's, and what is no text.
pub(crate) fn secret_value(context: &Context, prompt: &str) -> Result<SecretString, Failure> {
    let read = || {
        if io::stdin().is_terminal() {
            return line_unseen(context, prompt);
        }
        let mut text = String::new();
        io::stdin().lock().take(VALUE_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(Failure::io("read the value from standard input"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned().into())
}

/// Asks a question; `true` for yes. Nobody is asked where nobody can answer.
///
/// # Errors
/// Standard input's.
pub(crate) fn agreed(context: &Context, question: &str) -> Result<bool, Failure> {
    let answer = answer(context, &format!("{question} [y/N]"))?;
    Ok(matches!(answer.to_lowercase().as_str(), "y" | "yes"))
}

/// Asks for a text.
///
/// # Errors
/// Standard input's.
pub(crate) fn answer(context: &Context, question: &str) -> Result<String, Failure> {
    context.screen.no_progress();
    context.screen.say(question);
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(Failure::io("read the answer"))?;
    Ok(line.trim().to_owned())
}

/// Whether somebody can be asked.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn line_unseen(context: &Context, prompt: &str) -> io::Result<String> {
    let _silence = if io::stdin().is_terminal() {
        context.screen.say(prompt);
        Some(Silence::begin()?)
    } else {
        None
    };
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line)
}

/// While it lives the terminal does not show what is typed.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // The terminal is gone if this fails.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
