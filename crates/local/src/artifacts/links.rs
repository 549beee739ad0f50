//! Addresses of files that the server gives out, and that need no key for a while.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use axum::{
    body::Body,
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use chrono::TimeDelta;
use domain::{
    Timestamp,
    api::Problem,
    artifact::attachment,
    id::AttemptId,
    ports::{Clock as _, Entropy as _},
    upload::URL_SECONDS,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::fs::File;
use tokio_util::io::ReaderStream;
use url::{Url, form_urlencoded};

use crate::system::System;

/// The beginning of the paths of files.
const FILES: &str = "/files/";
/// The parameters of an address.
const NAME: &str = "name";
const UNTIL: &str = "until";
const SIGNATURE: &str = "signature";

/// The addresses of one server's files. Those of an earlier server are not good any more.
#[derive(Debug)]
pub(crate) struct FileLinks {
    server: SocketAddr,
    /// The key of the signatures, as long as a block of the hash.
    key: [u8; 64],
}

/// A file that may be read.
#[derive(Debug, PartialEq, Eq)]
struct OpenedLink {
    /// Its path below the folder of all files.
    path: PathBuf,
    /// The name under which it is saved.
    name: String,
}

impl FileLinks {
    /// The addresses of a server that listens here.
    pub(crate) fn of(server: SocketAddr) -> Self {
        let mut key = [0; 64];
        for part in key.chunks_mut(16) {
            part.copy_from_slice(&System.bits().to_be_bytes());
        }
        Self { server, key }
    }

    /// The address of a file.
    ///
    /// # Errors
    /// When it cannot be written as an address.
    pub(crate) fn url(
        &self,
        attempt: &AttemptId,
        batch: u32,
        number: u32,
        name: &str,
        now: Timestamp,
    ) -> Result<Url, url::ParseError> {
        let path = format!("{FILES}{attempt}/{batch}/{number}");
        let until = (now + TimeDelta::seconds(URL_SECONDS.cast_signed())).timestamp();
        let mut url = Url::parse(&format!("http://{}{path}", self.server))?;
        url.query_pairs_mut()
            .append_pair(NAME, name)
            .append_pair(UNTIL, &until.to_string())
            .append_pair(
                SIGNATURE,
                &hex::encode(self.mac(&path, name, until).finalize().into_bytes()),
            );
        Ok(url)
    }

    fn mac(&self, path: &str, name: &str, until: i64) -> Hmac<Sha256> {
        let mut mac = Hmac::new(&self.key.into());
        mac.update(format!("{path}\n{until}\n{name}").as_bytes());
        mac
    }

    /// The file at an address of ours that is still good.
    fn open(&self, uri: &Uri, now: Timestamp) -> Option<OpenedLink> {
        let query = uri.query().unwrap_or_default();
        let of = |wanted: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find_map(|(name, value)| (name == wanted).then(|| value.into_owned()))
        };
        let (name, until) = (of(NAME)?, of(UNTIL)?.parse().ok()?);
        let signature = hex::decode(of(SIGNATURE)?).ok()?;
        // The signed path has numbers and an attempt's id, so it leads nowhere else.
        self.mac(uri.path(), &name, until)
            .verify_slice(&signature)
            .ok()?;
        (now.timestamp() < until).then(|| OpenedLink {
            path: uri.path().trim_start_matches(FILES).into(),
            name,
        })
    }

    /// Answers a request for a file below this folder; `None` if the request is for something else.
    pub(crate) async fn answer(
        &self,
        request: &Parts,
        folder: &Path,
    ) -> Option<Result<Response, Problem>> {
        if !request.uri.path().starts_with(FILES) {
            return None;
        }
        Some(self.file(request, folder).await)
    }

    async fn file(&self, request: &Parts, folder: &Path) -> Result<Response, Problem> {
        if ![Method::GET, Method::HEAD].contains(&request.method) {
            let title = "a file can only be read";
            return Err(Problem::new(405, "method_not_allowed", title));
        }
        let link = self
            .open(&request.uri, System.now())
            .ok_or_else(|| Problem::new(403, "expired", "this address is not good any more"))?;
        let file = File::open(folder.join(&link.path)).await;
        let gone = |_| Problem::new(404, "no_such_file", "the file was removed");
        Ok(attached(file.map_err(gone)?, &link.name).await)
    }
}

/// A file that a browser saves and never shows.
async fn attached(file: File, name: &str) -> Response {
    let length = file.metadata().await.map(|metadata| metadata.len());
    let mut response = (StatusCode::OK, Body::from_stream(ReaderStream::new(file))).into_response();
    let headers = response.headers_mut();
    let binary = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, binary);
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    if let Ok(value) = HeaderValue::from_str(&attachment(name)) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    if let Ok(length) = length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_opens_its_file_for_a_while_and_nothing_else() {
        let links = FileLinks::of("127.0.0.1:1".parse().expect("an address"));
        let attempt: AttemptId = "exec_01JDWZ4N6Q8R0T2V4X6Z8A0C2E-1".parse().expect("an id");
        let now = Timestamp::from_timestamp(1_000_000, 0).expect("a time");
        let url = links.url(&attempt, 3, 7, "a&b ü", now).expect("an address");
        let open = |url: &str, seconds: i64| {
            let uri: Uri = url.parse().expect("an address");
            links.open(&uri, now + TimeDelta::seconds(seconds))
        };
        let text = url.as_str();
        let whole = OpenedLink {
            path: format!("{attempt}/3/7").into(),
            name: "a&b ü".to_owned(),
        };
        assert_eq!(open(text, 0), Some(whole));
        let lifetime = URL_SECONDS.cast_signed();
        assert!(open(text, lifetime - 1).is_some() && open(text, lifetime).is_none());
        for (from, to) in [
            ("/3/7", "/3/8"),
            ("/3/7", "/3/7/../8"),
            ("/files/", "/files//"),
            ("until=1", "until=2"),
            ("name=a", "name=b"),
            ("signature=", "signature=00"),
            ("signature=", "s="),
        ] {
            let changed = text.replace(from, to);
            assert!(changed != text && open(&changed, 0).is_none(), "{changed}");
        }
        let other = FileLinks::of("127.0.0.1:1".parse().expect("an address"));
        assert_eq!(other.open(&text.parse().expect("an address"), now), None);
    }
}
