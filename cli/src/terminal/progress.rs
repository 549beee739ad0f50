//! Shows progress while a stack is changed. On a terminal this is one line that changes; elsewhere
//! it is one line for each event.

use std::{
    cell::Cell,
    io::{self, IsTerminal},
};

use deploy::stack::{ResourceEvent, StackProgress};

use crate::terminal::screen::{Screen, one_line};

/// Prints the progress of a stack change.
pub(crate) struct ProgressPrinter<'a> {
    screen: &'a Screen,
    on_terminal: bool,
    done: Cell<usize>,
}

impl<'a> ProgressPrinter<'a> {
    /// Makes a printer for this screen.
    pub(crate) fn on(screen: &'a Screen) -> Self {
        Self {
            screen,
            on_terminal: io::stderr().is_terminal(),
            done: Cell::new(0),
        }
    }

    /// Shows one event.
    pub(crate) fn tell(&self, progress: StackProgress) {
        match progress {
            StackProgress::Step(text) => {
                self.screen.say(&text);
                self.screen.progress(&text);
            }
            StackProgress::Resource(event) => self.resource(&event),
        }
    }

    fn resource(&self, event: &ResourceEvent) {
        if event.is_end() {
            self.done.set(self.done.get() + 1);
        }
        if self.on_terminal && !event.is_failure() {
            let text = format!(
                "{} done; {} {}",
                self.done.get(),
                event.name,
                words(&event.status)
            );
            return self.screen.progress(&text);
        }
        let reason = event
            .reason
            .as_deref()
            .map(|reason| format!(": {}", one_line(reason, usize::MAX)));
        let time = event.at.format("%H:%M:%S");
        self.screen.say(&format!(
            "{time} {} {} ({}){}",
            event.status,
            event.name,
            event.kind,
            reason.unwrap_or_default()
        ));
    }
}

/// Makes words of a status: `CREATE_IN_PROGRESS` becomes "create in progress".
fn words(status: &str) -> String {
    status.to_lowercase().replace('_', " ")
}
