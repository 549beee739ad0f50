//! Points in the code where a test may kill the process, to check that nothing is lost at any
//! moment.
//!
//! `failpoint!("store.create.before")` does nothing unless this build has debug assertions and
//! [`VARIABLE`] names the point. Then the process gets SIGKILL, which it cannot handle. Every name
//! is a string literal in such a call, so a test can list the points from the source.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// The environment variable that names the point: `NAME`, or `NAME:N` for its N-th hit (counted
/// from 1). With a `!` at the end, the code panics there instead, as after a bug.
pub const VARIABLE: &str = "MYCLI_FAILPOINT";

/// Kills this process by SIGKILL here (or panics), if the environment asks for it. Does nothing in
/// builds without debug assertions.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        if cfg!(debug_assertions) {
            $crate::failpoint::hit($name);
        }
    };
}

/// The chosen point. The variable is read once.
struct Chosen {
    name: String,
    hits_left: AtomicU64,
    panics: bool,
}

/// Counts a hit of [`failpoint!`], and ends the process if it is the chosen one.
///
/// # Panics
/// If the variable asks for a panic.
pub fn hit(name: &str) {
    static CHOSEN: OnceLock<Option<Chosen>> = OnceLock::new();
    let chosen = CHOSEN
        .get_or_init(|| Chosen::parse(&std::env::var(VARIABLE).ok()?))
        .as_ref();
    if let Some(chosen) = chosen.filter(|chosen| chosen.name == name)
        && chosen.hits_left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        assert!(!chosen.panics, "asked to panic at {name}");
        die();
    }
}

impl Chosen {
    /// Reads `NAME[:N][!]`; `None` for an empty name, or for a count that is not a positive number.
    fn parse(text: &str) -> Option<Self> {
        let (text, panics) = text
            .strip_suffix('!')
            .map_or((text, false), |text| (text, true));
        let (name, hits) = text.split_once(':').unwrap_or((text, "1"));
        let hits = hits.parse().ok().filter(|hits| *hits > 0)?;
        (!name.is_empty()).then(|| Self {
            name: name.to_owned(),
            hits_left: AtomicU64::new(hits),
            panics,
        })
    }
}

fn die() -> ! {
    // A signal to the process itself cannot fail. If it does, the process still ends at once, by an
    // abort.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_may_be_named_with_the_hit_that_counts() {
        let read = |text| {
            Chosen::parse(text)
                .map(|chosen| (chosen.name, chosen.hits_left.into_inner(), chosen.panics))
        };
        assert_eq!(read("a.b"), Some(("a.b".into(), 1, false)));
        assert_eq!(read("a.b:3"), Some(("a.b".into(), 3, false)));
        assert_eq!(read("a.b:3!"), Some(("a.b".into(), 3, true)));
        assert_eq!(read("a.b:0"), None);
        assert_eq!(read("a.b:x"), None);
        assert_eq!(read(""), None);
    }
}
