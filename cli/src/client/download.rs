//! Downloads from the addresses that the API gives for files. They need no key, and get none.

use std::{fs::File, io::Read as _, sync::OnceLock, time::Duration};

use reqwest::{StatusCode, redirect};
use url::Url;

use super::{Client, retry};

/// How long no byte may come.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many bytes of a file of this machine are read at once.
const CHUNK: usize = 256 * 1024;

/// Why a file is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    /// Its address is no longer good.
    #[error("its address has expired")]
    Expired,
    /// It is not what was kept.
    #[error("it came damaged: {0}")]
    Damaged(String),
    /// It cannot be written.
    #[error("{0}")]
    Write(#[from] std::io::Error),
    /// It cannot be read.
    #[error("{reason}")]
    Read {
        /// The reason.
        reason: String,
        /// Whether it may be had later.
        may_pass: bool,
    },
}

/// Reads the file at an address that this client's API gave, and passes its bytes on.
///
/// # Errors
/// When it cannot be read, or the bytes cannot be taken.
pub(crate) async fn read(
    client: &Client,
    url: &Url,
    mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), DownloadError> {
    match (url.scheme(), client) {
        ("file", Client::Local(_)) => return read_file(url, take),
        ("http" | "https", _) => {}
        // A server has no business with files of this machine.
        (scheme, _) => {
            return Err(DownloadError::Read {
                reason: format!("its address begins with `{scheme}:`, which no server may give"),
                may_pass: false,
            });
        }
    }
    let mut answer = http()?.get(url.clone()).send().await.map_err(broken)?;
    match answer.status() {
        status if status.is_success() => {}
        StatusCode::FORBIDDEN => return Err(DownloadError::Expired),
        status => {
            return Err(DownloadError::Read {
                reason: format!("the server answered {status}"),
                may_pass: retry::is_passing(status.as_u16()) || status.is_server_error(),
            });
        }
    }
    while let Some(bytes) = answer.chunk().await.map_err(broken)? {
        take(&bytes)?;
    }
    Ok(())
}

/// Reads a file of this machine.
fn read_file(
    url: &Url,
    mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), DownloadError> {
    let gone = |reason: String| DownloadError::Read {
        reason,
        may_pass: false,
    };
    let path = url
        .to_file_path()
        .map_err(|()| gone("it is at no path".to_owned()))?;
    let mut file = File::open(path).map_err(|error| gone(error.to_string()))?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match file
            .read(&mut chunk)
            .map_err(|error| gone(error.to_string()))?
        {
            0 => return Ok(()),
            read => take(&chunk[..read])?,
        }
    }
}

fn http() -> Result<&'static reqwest::Client, DownloadError> {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client);
    }
    // A process has one crypto provider. A second installation fails and changes nothing.
    drop(rustls::crypto::ring::default_provider().install_default());
    let built = reqwest::Client::builder()
        .user_agent(concat!("mycli/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(SILENCE)
        .build();
    Ok(CLIENT.get_or_init(|| built.unwrap_or_default()))
}

fn broken(error: reqwest::Error) -> DownloadError {
    // The address is a secret for as long as it is good.
    let error = error.without_url();
    DownloadError::Read {
        may_pass: !error.is_builder(),
        reason: error.to_string(),
    }
}
