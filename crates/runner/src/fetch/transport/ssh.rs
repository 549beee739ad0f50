//! Git's protocol over SSH. The library speaks it over blocking pipes, so each read and write waits
//! for the session's next step.

use std::{
    io::{self, Read, Write},
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use domain::request::{RepoKind, RepoUrl};
use gix::protocol::transport::{
    Protocol,
    client::git::{ConnectMode, blocking_io::Connection},
};
use russh::{
    ChannelMsg, ChannelReadHalf, ChannelWriteHalf,
    client::{self, AuthResult, Handle, Msg},
    keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate},
};
use secrecy::{ExposeSecret as _, SecretString};

use super::{FaultNote, note_said};
use crate::fetch::{error::chain, known_hosts, network::Network};
use crate::order::FetchFault;

/// How often to ask a silent server whether it is still there. A server that prepares a large pack
/// is silent for long.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// The user name of an address without one. Every hosting service uses it.
const USER: &str = "git";
/// The most that is kept of what the server says, in bytes.
const SAID_MAX: usize = 8 * 1024;

/// An address of a repository over SSH.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    user: String,
    host: String,
    port: u16,
    path: String,
}

impl Address {
    fn of(repo: &RepoUrl) -> Option<Self> {
        let text = repo.as_str();
        let (authority, path) = match repo.kind() {
            RepoKind::Ssh => {
                let (authority, path) = text.strip_prefix("ssh://")?.split_once('/')?;
                // git takes `/~user/…` for a path that begins at that user's home.
                let path = match path.starts_with('~') {
                    true => path.to_owned(),
                    false => format!("/{path}"),
                };
                (authority, path)
            }
            _ => {
                let (authority, path) = scp_parts(text)?;
                (authority, path.to_owned())
            }
        };
        let user = authority.rsplit_once('@').map_or(USER, |(user, _)| user);
        Some(Self {
            user: user.to_owned(),
            host: repo.host()?.to_owned(),
            port: repo.port()?,
            path,
        })
    }
}

/// Splits `user@host:path`, where the host may be an address in brackets.
fn scp_parts(text: &str) -> Option<(&str, &str)> {
    let after = text.find(']').unwrap_or_default();
    let colon = after + text.get(after..)?.find(':')?;
    Some((&text[..colon], &text[colon + 1..]))
}

/// Connects to a repository over SSH.
///
/// # Errors
/// When the server cannot be reached, is not the one that is pinned, or does not accept the key.
pub(super) fn connect(
    network: &Rc<Network>,
    repo: &RepoUrl,
    key: Option<&SecretString>,
    known_hosts: &str,
    fault: &FaultNote,
) -> Result<Connection<ServerOutput, ServerInput>, FetchFault> {
    let address = Address::of(repo)
        .ok_or_else(|| FetchFault::last("the repository's address cannot be read"))?;
    let session = network.wait(open(network, &address, key, known_hosts))?;
    let session = Rc::new(session);
    let fault = FaultNote::clone(fault);
    let output = ServerOutput {
        network: Rc::clone(network),
        session: Rc::clone(&session),
        chunk: Bytes::new(),
        said: Vec::new(),
        has_ended: false,
        fault,
    };
    let input = ServerInput {
        network: Rc::clone(network),
        session,
    };
    let none: Option<(String, Option<u16>)> = None;
    let (version, mode) = (Protocol::V2, ConnectMode::Process);
    Ok(Connection::new(
        output,
        input,
        version,
        address.path,
        none,
        mode,
        false,
    ))
}

/// A session in which git serves the repository.
struct Session {
    /// Keeps the connection open.
    _handle: Handle<Pins>,
    reading: tokio::sync::Mutex<ChannelReadHalf>,
    writing: ChannelWriteHalf<Msg>,
}

async fn open(
    network: &Network,
    address: &Address,
    key: Option<&SecretString>,
    known_hosts: &str,
) -> Result<Session, FetchFault> {
    let Address {
        user,
        host,
        port,
        path,
    } = address;
    let pinned = pinned_keys(host, *port, known_hosts)?;
    let stream = network.connect(host, *port).await.map_err(|error| {
        FetchFault::passing(format!("ssh: cannot connect to {host}:{port}: {error}"))
    })?;
    let offered = Arc::new(Mutex::new(None));
    let pins = Pins {
        pinned: pinned.clone(),
        refused: Arc::clone(&offered),
    };
    let connected = client::connect_stream(Arc::new(config(&pinned)), stream, pins).await;
    let mut handle = connected.map_err(|error| {
        let refused = offered.lock().unwrap_or_else(PoisonError::into_inner);
        match refused.as_deref() {
            Some(seen) => FetchFault::last(format!(
                "host key verification failed: {host} shows the key {seen}, which is not among the pinned ones \
                 (`mycli secrets set GIT_KNOWN_HOSTS`)"
            )),
            None => FetchFault::passing(format!("ssh: {host}: {}", chain(&error))),
        }
    })?;
    authenticate(&mut handle, user, host, key).await?;
    let lost = |error: russh::Error| FetchFault::passing(format!("ssh: {host}: {}", chain(&error)));
    let channel = handle.channel_open_session().await.map_err(lost)?;
    // A server that does not take the variable answers in an older version of the protocol.
    let _refused = channel.set_env(false, "GIT_PROTOCOL", "version=2").await;
    let command = format!("git-upload-pack '{}'", path.replace('\'', r"'\''"));
    channel.exec(true, command).await.map_err(lost)?;
    let (reading, writing) = channel.split();
    Ok(Session {
        _handle: handle,
        reading: tokio::sync::Mutex::new(reading),
        writing,
    })
}

/// The settings of a connection: of the server's keys only kinds that are pinned are asked for.
fn config(pinned: &[PublicKey]) -> client::Config {
    let mut config = client::Config {
        keepalive_interval: Some(KEEPALIVE),
        nodelay: true,
        ..client::Config::default()
    };
    let is_pinned =
        |wanted: &Algorithm| pinned.iter().any(|key| same_kind(&key.algorithm(), wanted));
    let kinds: Vec<_> = config
        .preferred
        .key
        .iter()
        .filter(|kind| is_pinned(kind))
        .cloned()
        .collect();
    config.preferred.key = kinds.into();
    config
}

/// Whether two algorithms are for the same kind of key. An RSA key signs with several hashes.
fn same_kind(one: &Algorithm, other: &Algorithm) -> bool {
    one == other || (one.clone().is_rsa() && other.clone().is_rsa())
}

/// The keys that are pinned for a host.
fn pinned_keys(host: &str, port: u16, known_hosts: &str) -> Result<Vec<PublicKey>, FetchFault> {
    let unreadable = |error: &dyn std::fmt::Display| {
        FetchFault::last(format!("the known hosts cannot be read: {error}"))
    };
    let keys = known_hosts::keys_of(host, port, known_hosts).map_err(|error| unreadable(&error))?;
    if keys.is_empty() {
        return Err(FetchFault::last(format!(
            "host key verification failed: no key of {host} is pinned (`mycli secrets set GIT_KNOWN_HOSTS`)"
        )));
    }
    Ok(keys)
}

/// The keys by which a server is known.
struct Pins {
    pinned: Vec<PublicKey>,
    /// The fingerprint of a key that is none of them.
    refused: Arc<Mutex<Option<String>>>,
}

impl client::Handler for Pins {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        server: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = server else {
            return Ok(false);
        };
        let known = self
            .pinned
            .iter()
            .any(|pinned| pinned.key_data() == key.key_data());
        if !known {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(key.fingerprint(HashAlg::Sha256).to_string());
        }
        Ok(known)
    }
}

async fn authenticate(
    handle: &mut Handle<Pins>,
    user: &str,
    host: &str,
    key: Option<&SecretString>,
) -> Result<(), FetchFault> {
    let lost = |error: russh::Error| FetchFault::passing(format!("ssh: {host}: {}", chain(&error)));
    let accepted = match key {
        None => handle.authenticate_none(user).await.map_err(lost)?,
        Some(key) => {
            // The error may quote the key, so it is not repeated.
            let key = russh::keys::decode_secret_key(key.expose_secret(), None).map_err(|_| {
                FetchFault::last(
                    "GIT_SSH_KEY is not a private key without a passphrase, in OpenSSH's or PEM form",
                )
            })?;
            let hash = match key.algorithm().is_rsa() {
                true => handle
                    .best_supported_rsa_hash()
                    .await
                    .map_err(lost)?
                    .unwrap_or(Some(HashAlg::Sha256)),
                false => None,
            };
            let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
            handle
                .authenticate_publickey(user, key)
                .await
                .map_err(lost)?
        }
    };
    match (accepted, key) {
        (AuthResult::Success, _) => Ok(()),
        (_, Some(_)) => Err(FetchFault::last(format!(
            "permission denied: {user}@{host} does not accept the key of GIT_SSH_KEY"
        ))),
        (_, None) => Err(FetchFault::last(format!(
            "permission denied: {host} asks for a key, and there is none for it (`mycli secrets set GIT_SSH_KEY`)"
        ))),
    }
}

/// The output of the server's git.
pub(super) struct ServerOutput {
    network: Rc<Network>,
    session: Rc<Session>,
    chunk: Bytes,
    said: Vec<u8>,
    /// Whether the server's git has ended by itself.
    has_ended: bool,
    fault: FaultNote,
}

impl ServerOutput {
    /// Waits for the next bytes. None mean that the server has ended, and what it said is then
    /// noted as the reason.
    fn next(&mut self) -> Option<Bytes> {
        let session = Rc::clone(&self.session);
        loop {
            let message = self
                .network
                .wait(async { session.reading.lock().await.wait().await });
            match message {
                Some(ChannelMsg::Data { data }) if !data.is_empty() => {
                    self.network.received().add(data.len());
                    return Some(data);
                }
                Some(ChannelMsg::ExtendedData { data, .. }) if self.said.len() < SAID_MAX => {
                    self.said.extend_from_slice(&data);
                }
                Some(ChannelMsg::ExitStatus { .. }) => self.has_ended = true,
                Some(_) => {}
                None => {
                    self.note();
                    return None;
                }
            }
        }
    }

    fn note(&self) {
        if self.has_ended {
            note_said(&self.fault, &String::from_utf8_lossy(&self.said));
        } else {
            let broken = FetchFault::passing("ssh: the connection broke");
            *self.fault.borrow_mut() = Some(broken);
        }
    }
}

impl Read for ServerOutput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            match self.next() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let amount = self.chunk.len().min(buffer.len());
        buffer[..amount].copy_from_slice(&self.chunk.split_to(amount));
        Ok(amount)
    }
}

/// The input of the server's git.
pub(super) struct ServerInput {
    network: Rc<Network>,
    session: Rc<Session>,
}

impl Write for ServerInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self
            .network
            .wait(self.session.writing.data_bytes(bytes.to_vec()));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
