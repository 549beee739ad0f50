//! A minimal HTTP client for a server that may die in the middle of its answer.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// A bound on a hang.
const LONG: Duration = Duration::from_secs(30);

/// Posts JSON and returns the status and the answer. `None` if the server died before the answer
/// was complete.
pub(super) fn post(
    address: SocketAddr,
    path: &str,
    key: &str,
    body: &Value,
) -> Option<(u16, Value)> {
    let answer = send("POST", address, path, key, &body.to_string()).ok()?;
    parse(&answer)
}

/// Gets JSON in the same way.
pub(super) fn get(address: SocketAddr, path: &str, key: &str) -> Option<(u16, Value)> {
    parse(&send("GET", address, path, key, "").ok()?)
}

fn send(
    method: &str,
    address: SocketAddr,
    path: &str,
    key: &str,
    body: &str,
) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, LONG)?;
    stream.set_read_timeout(Some(LONG))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn parse(answer: &str) -> Option<(u16, Value)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    // A truncated body is not valid JSON.
    Some((status, serde_json::from_str(body).ok()?))
}
