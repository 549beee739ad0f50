//! Reads what the user types: secrets, without showing them, and answers to questions.

use std::io::{self, BufRead, IsTerminal, Read};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::SecretString;

use crate::{config::context::Context, failure::Failure};

/// The most bytes of a value that we read. We chose eight times what any variable can hold. A value
/// that is too long by mistake can then be reported with its length, and endless input does not
/// fill the memory.
const VALUE_MAX: u64 = 1 << 20;

/// Reads a line of standard input. On a terminal it shows `prompt` and hides what is typed.
///
/// # Errors
/// Standard input cannot be read, or the line is not UTF-8.
pub(crate) fn secret_line(context: &Context, prompt: &str) -> Result<SecretString, Failure> {
    let line = line_unseen(context, prompt).map_err(Failure::io("read standard input"))?;
    let line = String::from_utf8(line)
        .map_err(|_| Failure::Usage("standard input is not UTF-8".into()))?;
    Ok(line.into())
}

/// Reads the bytes of a value: a hidden line on a terminal, else all of standard input. One line
/// end at the end is removed.
///
/// # Errors
/// Standard input cannot be read, or the value is too long for any use.
pub(crate) fn secret_value(context: &Context, prompt: &str) -> Result<Vec<u8>, Failure> {
    let read = || {
        if io::stdin().is_terminal() {
            return line_unseen(context, prompt);
        }
        let mut bytes = Vec::new();
        io::stdin()
            .lock()
            .take(VALUE_MAX + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(Failure::io("read the value from standard input"))?;
    if bytes.len() as u64 > VALUE_MAX {
        let message = format!(
            "the value is longer than {VALUE_MAX} bytes: nothing was set. No variable can hold it"
        );
        return Err(Failure::Usage(message));
    }
    Ok(without_line_end(bytes))
}

/// Removes one line end, `\n` or `\r\n`.
fn without_line_end(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.strip_suffix(b"\n").map_or(bytes.len(), |rest| {
        rest.strip_suffix(b"\r").unwrap_or(rest).len()
    });
    bytes.truncate(end);
    bytes
}

/// Asks a question and returns whether the answer is yes. The end of the input counts as no.
///
/// # Errors
/// Standard input cannot be read.
pub(crate) fn agreed(context: &Context, question: &str) -> Result<bool, Failure> {
    let answer = answer(context, &format!("{question} [y/N]"))?;
    Ok(matches!(answer.to_lowercase().as_str(), "y" | "yes"))
}

/// Asks for a text.
///
/// # Errors
/// Standard input cannot be read.
pub(crate) fn answer(context: &Context, question: &str) -> Result<String, Failure> {
    context.screen.no_progress();
    context.screen.say(question);
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(Failure::io("read the answer"))?;
    Ok(line.trim().to_owned())
}

/// Whether a user at a terminal can be asked.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn line_unseen(context: &Context, prompt: &str) -> io::Result<Vec<u8>> {
    let _silence = if io::stdin().is_terminal() {
        context.screen.say(prompt);
        Some(Silence::begin()?)
    } else {
        None
    };
    let mut line = Vec::new();
    io::stdin().lock().read_until(b'\n', &mut line)?;
    Ok(line)
}

/// Hides what is typed on the terminal until it is dropped.
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
        // This fails only if the terminal is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_taken_off_a_value_and_nothing_else() {
        for (given, kept) in [
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            ("a\r", "a\r"),
            ("a\nb", "a\nb"),
            ("", ""),
        ] {
            assert_eq!(without_line_end(given.into()), kept.as_bytes(), "{given:?}");
        }
    }
}
