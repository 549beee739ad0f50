//! The signals that the keeper gets, and waiting for them together with output.

use std::{
    io::{self, PipeReader, Read as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use nix::sys::signal::SigSet;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};
use signal_hook::{
    consts::{
        SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU,
        SIGXFSZ,
    },
    flag,
    low_level::pipe,
};

/// The signals that end the command.
const ENDING: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT];
/// Signals that the keeper itself has no use for. A handler also makes sure that the command gets
/// them in their default form, whatever mycli's caller ignored.
const OTHERS: [i32; 6] = [SIGALRM, SIGPIPE, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ];

/// The signals of this process.
pub(super) struct Signals {
    woken: UnixStream,
    /// The number of the last signal that ends the command; 0 if there was none.
    told: Arc<AtomicUsize>,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub(super) fn new() -> io::Result<Self> {
        let (woken, wake) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        wake.set_nonblocking(true)?;
        let told = Arc::new(AtomicUsize::new(0));
        for signal in ENDING {
            let number = usize::try_from(signal).unwrap_or_default();
            flag::register_usize(signal, Arc::clone(&told), number)?;
            pipe::register(signal, wake.try_clone()?)?;
        }
        for signal in OTHERS {
            flag::register_usize(signal, Arc::default(), 0)?;
        }
        pipe::register(SIGCHLD, wake)?;
        // A caller may have blocked some of them.
        SigSet::empty().thread_set_mask()?;
        Ok(Self { woken, told })
    }

    /// The last signal that ends the command, once.
    pub(super) fn told(&self) -> Option<Signal> {
        let number = self.told.swap(0, Ordering::SeqCst);
        Signal::from_named_raw(i32::try_from(number).ok()?)
    }

    /// Waits for a signal or for output, this moment at the latest. Returns whether there is
    /// output.
    pub(super) fn wait(&self, output: Option<&PipeReader>, until: Option<Instant>) -> bool {
        let timeout = until.and_then(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec::try_from(left).ok()
        });
        let mut polled = vec![PollFd::from_borrowed_fd(self.woken.as_fd(), PollFlags::IN)];
        polled.extend(output.map(|output| PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)));
        let Ok(_) = poll(&mut polled, timeout.as_ref()) else {
            // A signal came.
            return false;
        };
        let has_output = polled
            .get(1)
            .is_some_and(|polled| !polled.revents().is_empty());
        if !polled[0].revents().is_empty() {
            let mut bytes = [0; 64];
            while matches!((&self.woken).read(&mut bytes), Ok(read) if read > 0) {}
        }
        has_output
    }
}
