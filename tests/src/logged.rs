//! The log of a part of a test, in the form that the functions write.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tracing_subscriber::{Layer as _, filter::LevelFilter, layer::SubscriberExt as _};

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the lines that `part` logs on this thread.
#[must_use]
pub fn during(part: impl FnOnce()) -> String {
    let collected = Collected::default();
    let writer = collected.clone();
    let subscriber = tracing_subscriber::registry().with(
        logging::json(move || writer.clone())
            .with_filter(logging::filter(LevelFilter::INFO, LevelFilter::WARN)),
    );
    tracing::subscriber::with_default(subscriber, part);
    String::from_utf8_lossy(&collected.bytes()).into_owned()
}
