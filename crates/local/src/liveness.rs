//! Who is alive: each process that runs work owns a *pump*, and holds a lock that the kernel lets go of when the process dies.

use std::{
    fs::{self, File},
    io,
    os::unix::{fs::MetadataExt, net::UnixDatagram},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::database::PumpId;

/// How often a new pump's lock is tried before that is an error. Whoever holds it does so for the blink of an eye. Ours.
const DECLARE_TRIES: u32 = 10_000;

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

    /// The socket, and the lock that is held while the socket is made and removed.
    fn paths(&self, pump: &PumpId) -> [PathBuf; 2] {
        [self.dir.join(format!("{pump}.sock")), self.dir.join(format!("{pump}.lock"))]
    }

    /// Every pump that has left a trace here, dead or alive: one may die before the store knows it, or after the store forgot it.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn traces(&self) -> io::Result<Vec<PumpId>> {
        let mut pumps = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|name| name.to_str());
            pumps.extend(name.map(|name| PumpId::from(name.to_owned())));
        }
        Ok(pumps)
    }

    /// Declares this pump alive until the value is dropped or the process dies.
    ///
    /// # Errors
    /// When the lock or the socket cannot be made.
    pub fn declare(&self, pump: &PumpId) -> io::Result<Alive> {
        let paths = self.paths(pump);
        for _ in 0..DECLARE_TRIES {
            // Who clears up after the dead may have taken the new file for a dead one's: then it is, or is about to be, removed.
            let Some(lock) = locked(&paths[1])?.filter(|lock| is_at(lock, &paths[1])) else { continue };
            let socket = tokio::net::UnixDatagram::bind(&paths[0])?;
            return Ok(Alive { socket, _lock: lock, paths });
        }
        Err(io::Error::other("the new pump's lock is held"))
    }

    /// Takes the place of a pump whose process is dead; `None` if it lives, or if somebody else is taking its place.
    ///
    /// # Errors
    /// When its lock cannot be looked at.
    pub fn inherit(&self, pump: &PumpId) -> io::Result<Option<Inheritance>> {
        let paths = self.paths(pump);
        Ok(locked(&paths[1])?.map(|lock| Inheritance { _lock: lock, paths }))
    }

    /// Wakes another pump. If it is gone, whoever inherits from it finds the message.
    pub fn wake(&self, pump: &PumpId) {
        let [socket, _] = self.paths(pump);
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

/// The lock goes last: as long as it is there and held, nobody makes a new socket.
fn remove(paths: &[PathBuf]) {
    for path in paths {
        let _gone = fs::remove_file(path);
    }
}

/// Whether this open file is the one at that path, which somebody may have removed or made anew in the meantime.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (opened, there) = (file.metadata().map(identity), fs::metadata(path).map(identity));
    matches!((opened, there), (Ok(opened), Ok(there)) if opened == there)
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
