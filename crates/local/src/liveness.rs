//! Who is alive: each process that runs work owns a *pump*, and holds a lock that the kernel lets go of when the process dies.

use std::{
    fs::{self, File},
    io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::database::PumpId;

/// The directory of the pumps' locks and sockets.
#[derive(Clone, Debug)]
pub struct Pumps {
    dir: PathBuf,
}

/// Held while a pump lives; its socket is how other processes wake it.
#[derive(Debug)]
pub struct Alive {
    /// Datagrams arrive here when there is something to look at.
    pub socket: tokio::net::UnixDatagram,
    _lock: File,
    paths: [PathBuf; 2],
}

/// Held while a dead pump's work is taken over, so that only one process does.
#[derive(Debug)]
pub struct Inheritance {
    _lock: File,
    paths: [PathBuf; 2],
}

impl Pumps {
    /// Pumps that keep their locks in this directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    fn paths(&self, pump: &PumpId) -> [PathBuf; 2] {
        [self.dir.join(format!("{pump}.lock")), self.dir.join(format!("{pump}.sock"))]
    }

    /// Declares this pump alive until the value is dropped or the process dies.
    ///
    /// # Errors
    /// When the lock or the socket cannot be made.
    pub fn declare(&self, pump: &PumpId) -> io::Result<Alive> {
        let paths = self.paths(pump);
        let lock = locked(&paths[0])?.ok_or_else(|| io::Error::other("the new pump's lock is held"))?;
        let socket = tokio::net::UnixDatagram::bind(&paths[1])?;
        Ok(Alive { socket, _lock: lock, paths })
    }

    /// Takes the place of a pump whose process is dead; `None` if it lives, or if somebody else is taking its place.
    ///
    /// # Errors
    /// When its lock cannot be looked at.
    pub fn inherit(&self, pump: &PumpId) -> io::Result<Option<Inheritance>> {
        let paths = self.paths(pump);
        Ok(locked(&paths[0])?.map(|lock| Inheritance { _lock: lock, paths }))
    }

    /// Wakes another pump. If it is gone, whoever inherits from it finds the message.
    pub fn wake(&self, pump: &PumpId) {
        let [_, socket] = self.paths(pump);
        let _gone = UnixDatagram::unbound().and_then(|from| {
            from.set_nonblocking(true)?;
            from.send_to(b"!", socket)
        });
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        remove(&self.paths);
    }
}

impl Inheritance {
    /// The dead pump is no more.
    pub fn complete(self) {
        remove(&self.paths);
    }
}

fn remove(paths: &[PathBuf]) {
    for path in paths {
        let _gone = fs::remove_file(path);
    }
}

/// The lock, if nobody holds it.
fn locked(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
