//! Keeping files in S3, by requests that our API signs.
//!
//! A file is read once, into memory, and what was read is hashed and sent. So a file that changes
//! meanwhile is kept as it was at one moment, and a large one is noticed.

use std::{
    fs::File,
    io::{self, Read as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use domain::{
    artifact::{BATCH_BYTES_MAX, Manifest, StoredFile},
    stored,
    upload::{
        FileToUpload, LargeUpload, PART_BYTES, SignedRequest, UploadAnswer, UploadStep,
        UploadedPart,
    },
};
use reqwest::{Client, Method, StatusCode, header::ETAG};
use serde_json::to_vec;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinSet;

use super::{Kept, collect::FoundFile, folder::open};
use crate::{
    attempt_api::{ApiCallError, AttemptApi, REQUEST, may_pass, pause, words},
    order::{AttemptAccess, FetchFault},
};

/// How many requests to S3 are under way at once. Parts are held in memory meanwhile.
const AT_ONCE: usize = 8;
/// How many parts of a large file are held in memory at once.
const PARTS_AT_ONCE: usize = 4;
/// How long nothing may succeed before the upload is given up (DESIGN §6).
const NO_PROGRESS: Duration = Duration::from_secs(600);
/// How often to look whether this process is told to end.
const LOOK: Duration = Duration::from_millis(100);
/// How often the same requests are signed anew, because they have expired.
const SIGNED_AGAIN_MAX: u32 = 5;
/// The reason for files that are not sent because this process is told to end.
const TOLD: &str = "the time for the upload was over";

/// The upload of an attempt's files.
pub(super) struct Api<'a> {
    api: AttemptApi,
    told: &'a AtomicBool,
    progress: UploadProgress,
}

/// When something last succeeded.
#[derive(Clone)]
struct UploadProgress(Arc<Mutex<Instant>>);

impl UploadProgress {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn made(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_over(&self) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.elapsed() > NO_PROGRESS
    }
}

/// Why a request did not succeed.
enum SendError {
    /// Its signature is no longer good.
    Expired,
    /// It will not succeed.
    Refused(String),
}

impl<'a> Api<'a> {
    /// The API for this attempt.
    ///
    /// # Errors
    /// When it cannot be called from here.
    pub(super) fn new(access: &AttemptAccess, told: &'a AtomicBool) -> Result<Self, FetchFault> {
        Ok(Self {
            api: AttemptApi::new(access)?,
            told,
            progress: UploadProgress::new(),
        })
    }

    /// Sends the files of a batch.
    pub(super) fn put(&self, batch: u32, files: &[FoundFile]) -> Kept {
        match files {
            [file] if file.bytes > BATCH_BYTES_MAX => self.put_large(batch, file),
            files => self.put_small(batch, files),
        }
    }

    /// Sends the manifest of a batch.
    ///
    /// # Errors
    /// Why it cannot be sent.
    pub(super) fn finish(&self, batch: u32, manifest: &Manifest) -> Result<(), String> {
        let text = stored::write_text(manifest, &stored::Unknown::default())
            .map_err(|error| error.to_string())?;
        let text = Bytes::from(text);
        let step = UploadStep::Manifest {
            batch,
            bytes: text.len() as u64,
            sha256: hex::encode(Sha256::digest(&text)),
        };
        let mut sent = self.send_all(&step, &[text])?;
        sent.pop().unwrap_or(Err(TOLD.to_owned())).map(drop)
    }

    fn put_small(&self, batch: u32, files: &[FoundFile]) -> Kept {
        let mut kept = Kept::default();
        let (mut contents, mut whole) = (Vec::new(), Vec::new());
        for (index, file) in files.iter().enumerate() {
            match content(file) {
                Ok(content) => {
                    whole.push((index, hex::encode(Sha256::digest(&content))));
                    contents.push(content);
                }
                Err(error) => kept.lost.push((index, error.to_string())),
            }
        }
        if contents.is_empty() {
            return kept;
        }
        let asked = contents.iter().zip(&whole);
        let step = UploadStep::Files {
            batch,
            files: asked
                .map(|(content, (_, sha256))| FileToUpload {
                    bytes: content.len() as u64,
                    sha256: sha256.clone(),
                })
                .collect(),
        };
        let sent = match self.send_all(&step, &contents) {
            Ok(sent) => sent,
            Err(why) => {
                kept.lost
                    .extend(whole.iter().map(|(index, _)| (*index, why.clone())));
                kept.fatal = Some(why);
                return kept;
            }
        };
        kept.is_begun = true;
        for (number, ((sent, content), (index, sha256))) in
            (0..).zip(sent.into_iter().zip(&contents).zip(whole))
        {
            match sent {
                Ok(_) => kept.stored.push(StoredFile {
                    number,
                    path: files[index].path.clone(),
                    bytes: content.len() as u64,
                    mode: files[index].mode,
                    sha256,
                }),
                Err(why) => kept.lost.push((index, why)),
            }
        }
        kept
    }

    fn put_large(&self, batch: u32, file: &FoundFile) -> Kept {
        let mut kept = Kept::default();
        match self.parts_of(batch, file, &mut kept.is_begun) {
            Ok(stored) => kept.stored.push(stored),
            Err(LargeError::File(why)) => kept.lost.push((0, why)),
            Err(LargeError::Api(why)) => {
                kept.lost.push((0, why.clone()));
                kept.fatal = Some(why);
            }
        }
        kept
    }

    fn parts_of(
        &self,
        batch: u32,
        file: &FoundFile,
        is_begun: &mut bool,
    ) -> Result<StoredFile, LargeError> {
        let of_file = |error: io::Error| LargeError::File(error.to_string());
        let mut from = open(&file.at).map_err(of_file)?;
        let large = LargeUpload {
            bytes: file.bytes,
            id: String::new(),
        };
        let begin = UploadStep::Large {
            batch,
            bytes: large.bytes,
        };
        self.step(&begin).map_err(LargeError::Api)?;
        *is_begun = true;
        let (mut hash, mut done) = (Sha256::new(), Vec::new());
        let numbers: Vec<u32> = (1..=large.parts()).collect();
        for group in numbers.chunks(PARTS_AT_ONCE) {
            let mut parts = Vec::with_capacity(group.len());
            for number in group {
                let length = large.part_bytes(*number).unwrap_or_default();
                parts.push(read_part(&mut from, length).map_err(of_file)?);
            }
            let hashes: Vec<_> = parts
                .iter()
                .map(|part| hex::encode(Sha256::digest(part)))
                .collect();
            parts.iter().for_each(|part| hash.update(part));
            let step = UploadStep::Parts {
                batch,
                first: group[0],
                sha256: hashes.clone(),
            };
            let sent = self.send_all(&step, &parts).map_err(LargeError::Api)?;
            for (sent, sha256) in sent.into_iter().zip(hashes) {
                done.push(UploadedPart {
                    etag: sent.map_err(LargeError::File)?,
                    sha256,
                });
            }
        }
        let complete = UploadStep::Complete { batch, parts: done };
        self.step(&complete).map_err(LargeError::Api)?;
        Ok(StoredFile {
            number: 0,
            path: file.path.clone(),
            bytes: file.bytes,
            mode: file.mode,
            sha256: hex::encode(hash.finalize()),
        })
    }

    /// Asks for signed requests, and sends these contents by them. Returns S3's tag of each, or why
    /// it was not sent. When this process is told to end, nothing more is sent but a manifest:
    /// without it the files that were sent could not be found.
    ///
    /// # Errors
    /// When the API signs nothing.
    fn send_all(
        &self,
        step: &UploadStep,
        contents: &[Bytes],
    ) -> Result<Vec<Result<String, String>>, String> {
        let mut sent: Vec<Option<Result<String, String>>> = vec![None; contents.len()];
        let is_manifest = matches!(step, UploadStep::Manifest { .. });
        let is_over = || !is_manifest && self.is_told();
        for _ in 0..=SIGNED_AGAIN_MAX {
            let left: Vec<_> = (0..sent.len()).filter(|at| sent[*at].is_none()).collect();
            if left.is_empty() {
                break;
            }
            let answer = self.step(step)?;
            if answer.requests.len() != contents.len() {
                return Err("the API signed another number of requests".to_owned());
            }
            let client = self
                .api
                .network()
                .client()
                .map_err(|fault| fault.reason)?
                .clone();
            let work = self.send_some(&client, &answer.requests, contents, &left, is_over);
            for (at, result) in self.api.network().wait(work) {
                match result {
                    Ok(etag) => sent[at] = Some(Ok(etag)),
                    Err(SendError::Refused(why)) => sent[at] = Some(Err(why)),
                    Err(SendError::Expired) => {}
                }
            }
            if is_over() {
                break;
            }
        }
        let missing = || match self.is_told() {
            true => TOLD.to_owned(),
            false => "S3 does not accept the API's signature".to_owned(),
        };
        Ok(sent
            .into_iter()
            .map(|sent| sent.unwrap_or_else(|| Err(missing())))
            .collect())
    }

    /// Sends some of the contents. Those that are not sent when the time is over are missing.
    async fn send_some(
        &self,
        client: &Client,
        requests: &[SignedRequest],
        contents: &[Bytes],
        which: &[usize],
        is_over: impl Fn() -> bool,
    ) -> Vec<(usize, Result<String, SendError>)> {
        let (mut set, mut done, mut next) = (JoinSet::new(), Vec::new(), which.iter());
        loop {
            while set.len() < AT_ONCE && !is_over() {
                let Some(at) = next.next().copied() else {
                    break;
                };
                let (client, progress) = (client.clone(), self.progress.clone());
                let (request, content) = (requests[at].clone(), contents[at].clone());
                set.spawn(async move { (at, send(&client, &request, content, &progress).await) });
            }
            match tokio::time::timeout(LOOK, set.join_next()).await {
                Ok(None) => return done,
                Ok(Some(Ok(one))) => done.push(one),
                // A part of this program that has failed counts as not sent.
                Ok(Some(Err(_))) => {}
                Err(_) if is_over() => return done,
                Err(_) => {}
            }
        }
    }

    fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// Makes a step of the upload.
    ///
    /// # Errors
    /// Why the API does not take it.
    fn step(&self, step: &UploadStep) -> Result<UploadAnswer, String> {
        let body = Bytes::from(to_vec(step).map_err(|error| error.to_string())?);
        let mut tried = 0;
        loop {
            let why = match self.api.call(Method::POST, "uploads", Some(body.clone())) {
                Ok(text) => {
                    self.progress.made();
                    return serde_json::from_slice(&text)
                        .map_err(|_| "the API's answer cannot be read".to_owned());
                }
                Err(ApiCallError::Refused(why)) => return Err(why),
                Err(ApiCallError::Passing(why)) => why,
            };
            if self.is_told() {
                return Err(TOLD.to_owned());
            }
            if self.progress.is_over() {
                return Err(format!("nothing could be uploaded for 10 minutes: {why}"));
            }
            tried += 1;
            thread::sleep(pause(tried));
        }
    }
}

/// The code, with status 400, of a request that was signed with credentials which have expired since
/// (S3 API reference, "Error responses").
const EXPIRED_TOKEN: &str = "ExpiredToken";
/// The codes, with status 400, of a body that did not come in time or whole (the same). It may come
/// the next time.
const PASSING: [&str; 2] = ["RequestTimeout", "IncompleteBody"];

/// Why a large file is not kept.
enum LargeError {
    /// It cannot be read, or was refused.
    File(String),
    /// The API cannot be used.
    Api(String),
}

/// Sends one content. Returns S3's tag of it.
async fn send(
    client: &Client,
    request: &SignedRequest,
    content: Bytes,
    progress: &UploadProgress,
) -> Result<String, SendError> {
    let mut tried = 0;
    loop {
        let mut call = client
            .put(&request.url)
            .timeout(REQUEST)
            .body(content.clone());
        // The client itself sends the host, and the length unless that is nothing.
        let given = |name: &str| match name {
            "content-length" => content.is_empty(),
            name => name != "host",
        };
        for (name, value) in request.headers.iter().filter(|(name, _)| given(name)) {
            call = call.header(name, value);
        }
        let why = match call.send().await {
            Ok(answer) if answer.status().is_success() => {
                progress.made();
                let tag = answer.headers().get(ETAG).and_then(|tag| tag.to_str().ok());
                return Ok(tag.unwrap_or_default().to_owned());
            }
            Ok(answer) => {
                let status = answer.status();
                let text = answer.bytes().await.unwrap_or_default();
                let code = error_code(&String::from_utf8_lossy(&text));
                let why = match &code {
                    Some(code) => format!("S3 answers {status} ({code})"),
                    None => format!("S3 answers {status}"),
                };
                let code = code.as_deref().unwrap_or_default();
                if status == StatusCode::FORBIDDEN || code == EXPIRED_TOKEN {
                    return Err(SendError::Expired);
                }
                if !may_pass(status) && !PASSING.contains(&code) {
                    return Err(SendError::Refused(why));
                }
                why
            }
            Err(error) => words(&error),
        };
        if progress.is_over() {
            return Err(SendError::Refused(why));
        }
        tried += 1;
        tokio::time::sleep(pause(tried)).await;
    }
}

/// The code of an error of S3, which is the first of that name in its XML.
fn error_code(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_code.then(|| code.to_owned())
}

/// Reads a small file, at most as much as it had when it was found.
fn content(file: &FoundFile) -> io::Result<Bytes> {
    let mut content = Vec::with_capacity(usize::try_from(file.bytes).unwrap_or_default());
    open(&file.at)?.take(file.bytes).read_to_end(&mut content)?;
    Ok(content.into())
}

fn read_part(file: &mut File, length: u64) -> io::Result<Bytes> {
    debug_assert!(length <= PART_BYTES);
    let mut part = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    file.take(length).read_to_end(&mut part)?;
    if part.len() as u64 != length {
        return Err(io::Error::other("it became shorter while it was uploaded"));
    }
    Ok(part.into())
}
