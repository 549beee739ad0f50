//! The engine posing as one that is not Podman, to test what mycli does only with Docker, which is
//! not available here.

use std::{
    fs, io,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use serde_json::json;
use tests::engine::Engine;

/// Answers the version request as Docker does and passes everything else on to the engine.
pub(super) struct Docker {
    path: PathBuf,
    over: Arc<AtomicBool>,
    serving: Option<thread::JoinHandle<()>>,
}

impl Docker {
    /// Listens at this path.
    pub(super) fn at(path: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).expect("a socket");
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let serving = thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                // The client may be dead.
                thread::spawn(move || drop(pass(client)));
            }
        });
        Self {
            path,
            over,
            serving: Some(serving),
        }
    }

    /// The value of `DOCKER_HOST`.
    pub(super) fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.path));
        let _ended = self.serving.take().map(thread::JoinHandle::join);
        let _gone = fs::remove_file(&self.path);
    }
}

fn pass(mut client: UnixStream) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if String::from_utf8_lossy(&head)
        .lines()
        .next()
        .is_some_and(|line| line.contains("/version "))
    {
        let body = json!({"Version": "20.10.0", "ApiVersion": "1.41"}).to_string();
        return write!(
            client,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
    let mut engine = UnixStream::connect(Engine::shared().socket())?;
    engine.write_all(&head)?;
    let (mut from_client, mut to_engine) = (client.try_clone()?, engine.try_clone()?);
    let forth = thread::spawn(move || {
        let _either_went_away = io::copy(&mut from_client, &mut to_engine);
        to_engine.shutdown(Shutdown::Both)
    });
    let _either_went_away = io::copy(&mut engine, &mut client);
    client.shutdown(Shutdown::Both)?;
    forth.join().unwrap_or(Ok(()))
}
