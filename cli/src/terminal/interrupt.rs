//! Handles Ctrl-C and similar signals while a run is followed.

use std::io::{self, BufRead, IsTerminal, Write};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use crate::terminal::screen::Screen;

/// The user's wish for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InterruptWish {
    /// Stop the run.
    Cancel,
    /// Stop following the run, which goes on.
    Detach,
    /// Go on following.
    Stay,
}

/// The signals, caught from the moment this is made.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Interrupts {
    /// Catches SIGINT, SIGTERM and SIGHUP.
    ///
    /// # Errors
    /// The signal handlers cannot be installed.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for any of the signals.
    pub(crate) async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }

    /// Waits for the user's next wish about `what`. On a terminal, Ctrl-C asks, and another signal
    /// while the question is open detaches. Elsewhere nobody can answer, so Ctrl-C detaches at
    /// once. SIGTERM and SIGHUP always detach.
    pub(crate) async fn wish(&mut self, what: &str, screen: &Screen) -> InterruptWish {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => return InterruptWish::Detach,
            _ = self.hang_up.recv() => return InterruptWish::Detach,
        }
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return InterruptWish::Detach;
        }
        // A spinner would be drawn over the question.
        let _asking = screen.asking();
        tokio::select! {
            wish = answer(what) => wish,
            () = self.any() => InterruptWish::Detach,
        }
    }
}

/// Asks on the terminal. A separate thread reads the answer, because reading cannot be interrupted.
/// The process ends without waiting for that thread.
async fn answer(what: &str) -> InterruptWish {
    let question = format!(
        "\nmycli: c cancels {what}, d (or Ctrl-C again) leaves it running, Enter goes on following: "
    );
    // If the question cannot be shown, no answer comes, and that means to detach.
    drop(io::stderr().lock().write_all(question.as_bytes()));
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = io::stdin().lock().read_line(&mut line);
        drop(sender.send(read.ok().filter(|bytes| *bytes > 0).map(|_| line)));
    });
    match receiver.await.ok().flatten() {
        Some(line) => meaning(&line),
        None => InterruptWish::Detach,
    }
}

fn meaning(line: &str) -> InterruptWish {
    match line.trim().to_lowercase().as_str() {
        "c" | "cancel" => InterruptWish::Cancel,
        "d" | "detach" => InterruptWish::Detach,
        _ => InterruptWish::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_word_cancels() {
        assert_eq!(
            [" C\n", "d\n", "\n", "yes\n"].map(meaning),
            [
                InterruptWish::Cancel,
                InterruptWish::Detach,
                InterruptWish::Stay,
                InterruptWish::Stay
            ]
        );
    }
}
