//! Uploads: the runner as mycli carries it, the handler that signs its requests, and a store of
//! files that takes only what was signed.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use aws_lambda_events::apigw::{ApiGatewayProxyRequest, ApiGatewayProxyResponse};
use axum::{
    Router,
    body::Bytes,
    extract::{Path as UrlPath, State},
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::{post, put},
};
use chrono::TimeDelta;
use domain::{
    artifact::{BATCH_BYTES_MAX, MANIFEST, Manifest, UploadSummary},
    attempt_secret::AttemptSecret,
    execution::Execution,
    id::AttemptId,
    ports::{ArtifactWrites, Clock, PortError, UploadRecords as _, WriteStore as _},
    stored,
    transition::LaunchPlan,
    upload::{
        FileToUpload, LargeUpload, PART_BYTES, SignedRequest, UploadAnswer, UploadStep,
        UploadedPart,
    },
};
use pipeline::{attempts, uploads::Uploads};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tests::memory::MemoryStore;

use crate::{
    contract::records::{Wish, at, close, run_task_input},
    runner::{program, start},
};

/// A clock that stands still.
struct Still;

impl Clock for Still {
    fn now(&self) -> domain::Timestamp {
        at(1_000)
    }

    async fn sleep(&self, _: TimeDelta) {}
}

/// An answer that is given in the place of the store's own.
type Fault = dyn Fn(u32, &str) -> Option<StatusCode> + Send + Sync;

/// The store of files. It keeps what it signed for, and takes nothing else.
#[derive(Clone)]
struct Files(Arc<FilesInner>);

struct FilesInner {
    address: SocketAddr,
    objects: Mutex<BTreeMap<String, Bytes>>,
    /// The parts of uploads, by the uploads' ids.
    parts: Mutex<BTreeMap<String, BTreeMap<u32, Bytes>>>,
    fault: Box<Fault>,
    /// How many requests came, to us and to the API.
    puts: AtomicU32,
    steps: AtomicU32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Files {
    fn signed(&self, key: &str, more: &str, bytes: u64, sha256: &str) -> SignedRequest {
        let address = self.0.address;
        SignedRequest {
            url: format!("http://{address}/s3/{key}?bytes={bytes}&sha256={sha256}{more}"),
            headers: [
                ("content-length".to_owned(), bytes.to_string()),
                ("x-signed".to_owned(), sha256.to_owned()),
            ]
            .into(),
        }
    }

    fn object(&self, key: &str) -> Option<Bytes> {
        lock(&self.0.objects).get(key).cloned()
    }

    /// The manifests of all batches, in their order.
    fn manifests(&self, attempt: &AttemptId) -> Vec<Manifest> {
        let read = |batch: u32| {
            let text = self.object(&format!("{attempt}/{batch}/{MANIFEST}"))?;
            let (manifest, _) = stored::read_text(&text).expect("a manifest");
            Some(manifest)
        };
        (0..).map_while(read).collect()
    }

    /// The files by their paths.
    fn kept(&self, attempt: &AttemptId) -> BTreeMap<String, Bytes> {
        let mut kept = BTreeMap::new();
        for (batch, manifest) in self.manifests(attempt).into_iter().enumerate() {
            for file in manifest.files {
                let content = self.object(&format!("{attempt}/{batch}/{}", file.number));
                let content = content.expect("what a manifest names is there");
                assert_eq!(
                    (file.bytes, file.sha256),
                    (content.len() as u64, hash(&content))
                );
                kept.insert(file.path.to_string(), content);
            }
        }
        kept
    }
}

impl ArtifactWrites for Files {
    async fn sign_file(
        &self,
        attempt: &AttemptId,
        batch: u32,
        number: Option<u32>,
        bytes: u64,
        sha256: &str,
    ) -> Result<SignedRequest, PortError> {
        let name = number.map_or_else(|| MANIFEST.to_owned(), |number| number.to_string());
        Ok(self.signed(&format!("{attempt}/{batch}/{name}"), "", bytes, sha256))
    }

    async fn begin_large(&self, attempt: &AttemptId, batch: u32) -> Result<String, PortError> {
        let id = format!("{attempt}-{batch}-{}", self.0.steps.load(Ordering::Relaxed));
        lock(&self.0.parts).insert(id.clone(), BTreeMap::new());
        Ok(id)
    }

    async fn sign_part(
        &self,
        attempt: &AttemptId,
        batch: u32,
        upload: &LargeUpload,
        part: u32,
        sha256: &str,
    ) -> Result<SignedRequest, PortError> {
        let bytes = upload.part_bytes(part).expect("a part");
        let more = format!("&upload={}&part={part}", upload.id);
        Ok(self.signed(&format!("{attempt}/{batch}/0"), &more, bytes, sha256))
    }

    async fn complete_large(
        &self,
        attempt: &AttemptId,
        batch: u32,
        upload: &LargeUpload,
        parts: &[UploadedPart],
    ) -> Result<(), PortError> {
        let there = lock(&self.0.parts)
            .get(&upload.id)
            .cloned()
            .unwrap_or_default();
        let told: Vec<_> = parts.iter().map(|part| part.sha256.clone()).collect();
        if there.values().map(|part| hash(part)).collect::<Vec<_>>() != told {
            return Err(PortError::invalid("the store", "other parts"));
        }
        let whole: Vec<u8> = there.values().flatten().copied().collect();
        lock(&self.0.objects).insert(format!("{attempt}/{batch}/0"), whole.into());
        Ok(())
    }
}

/// The store's own door.
async fn take(
    State(world): State<Shared>,
    UrlPath(key): UrlPath<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let files = &world.files;
    let pairs = uri.query().unwrap_or_default().split('&');
    let query: BTreeMap<_, _> = pairs.filter_map(|pair| pair.split_once('=')).collect();
    let count = files.0.puts.fetch_add(1, Ordering::Relaxed);
    if let Some(status) = (files.0.fault)(count, &format!("PUT {key}")) {
        return status.into_response();
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (bytes, sha256) = (&query["bytes"], &query["sha256"]);
    let is_signed = header("x-signed") == Some(*sha256) && header("content-length") == Some(*bytes);
    if !is_signed || body.len().to_string() != *bytes || hash(&body) != *sha256 {
        return StatusCode::FORBIDDEN.into_response();
    }
    match query.get("upload") {
        Some(upload) => {
            let part = query["part"].parse().expect("a number");
            lock(&files.0.parts)
                .entry((*upload).to_owned())
                .or_default()
                .insert(part, body);
        }
        None => drop(lock(&files.0.objects).insert(key, body)),
    }
    [("etag", "\"tag\"")].into_response()
}

/// The API's door.
async fn step(
    State(world): State<Shared>,
    UrlPath(id): UrlPath<String>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let count = world.files.0.steps.fetch_add(1, Ordering::Relaxed);
    if let Some(status) = (world.files.0.fault)(count, "POST") {
        return status.into_response();
    }
    let answer = world.ask(&id, headers, body).await;
    let status = StatusCode::from_u16(u16::try_from(answer.status_code).expect("a status"));
    let body = answer.body.map(|body| body.to_vec()).unwrap_or_default();
    (status.expect("a status"), body).into_response()
}

type Shared = Arc<World>;

/// An execution with an open attempt, and the servers.
struct World {
    store: MemoryStore,
    files: Files,
    execution: Execution,
    secret: AttemptSecret,
}

impl World {
    fn new(fault: impl Fn(u32, &str) -> Option<StatusCode> + Send + Sync + 'static) -> Shared {
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .expect("a runtime")
                .block_on(Self::serve(Box::new(fault), send));
        });
        receive.recv().expect("it serves")
    }

    async fn serve(fault: Box<Fault>, tell: std::sync::mpsc::Sender<Shared>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let files = Files(Arc::new(FilesInner {
            address: listener.local_addr().expect("an address"),
            objects: Mutex::default(),
            parts: Mutex::default(),
            fault,
            puts: AtomicU32::default(),
            steps: AtomicU32::default(),
        }));
        let (store, secret) = (MemoryStore::default(), AttemptSecret::of_bits(7));
        let submitted = Wish::default().submit(&store).await;
        let plan = LaunchPlan {
            nonce: secret.nonce(),
            token_hash: Some(secret.token().hash()),
            run_task: run_task_input(&submitted),
            price: None,
        };
        let launched = submitted.launching(plan, at(500)).expect("it is due");
        let execution = store
            .update(&submitted, launched, &[])
            .await
            .expect("it is written");
        let world = Arc::new(Self {
            store,
            files,
            execution,
            secret,
        });
        let router = Router::new()
            .route("/attempts/{id}/uploads", post(step))
            .route("/s3/{*key}", put(take))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&world));
        tell.send(world).expect("somebody waits");
        axum::serve(listener, router).await.expect("it serves");
    }

    fn attempt(&self) -> AttemptId {
        self.execution.id.attempt(1)
    }

    async fn ask(&self, id: &str, headers: HeaderMap, body: String) -> ApiGatewayProxyResponse {
        let mut request = ApiGatewayProxyRequest::default();
        request.http_method = Method::POST;
        request.path = Some(format!("/attempts/{id}/uploads"));
        request.headers = headers;
        request.body = Some(body);
        assert!(attempts::takes(&request));
        let handler = Uploads {
            store: &self.store,
            files: &self.files,
            system: &Still,
        };
        handler.handle(&request).await
    }

    /// A step with the attempt's own token: the status, and the problem's code if there is one.
    async fn step(&self, step: &Value) -> (i64, Value) {
        self.step_of(
            &self.attempt().to_string(),
            self.secret.token().expose(),
            step,
        )
        .await
    }

    async fn step_of(&self, attempt: &str, token: &str, step: &Value) -> (i64, Value) {
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {token}").parse().expect("a header");
        headers.insert("authorization", bearer);
        let answer = self.ask(attempt, headers, step.to_string()).await;
        let body = answer.body.expect("a body").to_vec();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let code = body.get("code").cloned();
        (answer.status_code, code.unwrap_or(body))
    }

    /// Starts the runner's upload of a folder.
    fn start(&self, root: &Path) -> Child {
        let order = json!({
            "root": root,
            "globs": ["**"],
            "into": {"api": {
                "api": format!("http://{}", self.files.0.address),
                "attempt": self.attempt(),
                "token": self.secret.token().expose(),
            }},
        });
        let mut command = Command::new(program());
        start(command.stderr(Stdio::null()), &["upload"], &order)
    }

    fn upload(&self, root: &Path) -> UploadSummary {
        summary(self.start(root))
    }
}

/// The last report of an upload.
fn summary(child: Child) -> UploadSummary {
    let output = child.wait_with_output().expect("it ends");
    let reports = String::from_utf8(output.stdout).expect("text");
    runner_summary(&reports)
}

fn runner_summary(reports: &str) -> UploadSummary {
    let last = reports.lines().next_back().unwrap_or_default();
    let numbers = last
        .strip_prefix("done ")
        .unwrap_or_else(|| panic!("{reports:?}"));
    UploadSummary::read(numbers).expect("a summary")
}

fn no_fault(_: u32, _: &str) -> Option<StatusCode> {
    None
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
        fs::write(path, content).expect("it is written");
    }
    folder
}

fn patterned(length: u64) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

#[test]
fn files_of_all_sizes_come_whole() {
    let world = World::new(no_fault);
    let large = patterned(2 * PART_BYTES + BATCH_BYTES_MAX / 4 + 1);
    let whole = patterned(BATCH_BYTES_MAX);
    let files: [(&str, &[u8]); 4] = [
        ("a", b"x"),
        ("empty", b""),
        ("in/large", &large),
        ("whole", &whole),
    ];
    let root = folder(&files);
    let summary = world.upload(root.path());
    assert_eq!((summary.files, summary.reason), (4, None));
    let kept = world.files.kept(&world.attempt());
    for (path, content) in files {
        assert!(kept[path] == content, "{path}");
    }
}

/// Many small files take few requests to the API.
#[test]
fn a_thousand_files_take_six_steps() {
    let world = World::new(no_fault);
    let root = tempfile::tempdir().expect("a folder");
    for number in 0..1_200 {
        fs::write(root.path().join(number.to_string()), number.to_string()).expect("a file");
    }
    let summary = world.upload(root.path());
    assert_eq!((summary.files, summary.reason), (1_200, None));
    assert_eq!(world.files.kept(&world.attempt()).len(), 1_200);
    assert_eq!(world.files.0.steps.load(Ordering::Relaxed), 6);
}

/// Throttled, unavailable, and with signatures that expire: each request is made again.
#[test]
fn an_upload_outlasts_faults_that_pass() {
    let world = World::new(|count, request| match (request, count) {
        ("POST", 0) => Some(StatusCode::TOO_MANY_REQUESTS),
        ("POST", 2) => Some(StatusCode::SERVICE_UNAVAILABLE),
        ("POST", _) => None,
        (_, 0 | 3) => Some(StatusCode::SERVICE_UNAVAILABLE),
        (_, 1 | 4 | 6) => Some(StatusCode::FORBIDDEN),
        _ => None,
    });
    let large = patterned(BATCH_BYTES_MAX + 1);
    let root = folder(&[("a", b"x"), ("b", b"y"), ("large", &large)]);
    let summary = world.upload(root.path());
    assert_eq!((summary.files, summary.reason), (3, None));
    assert!(world.files.kept(&world.attempt())["large"] == large[..]);
}

/// A file that S3 refuses for good is missing, and all others are there.
#[test]
fn a_file_that_is_refused_is_told_and_the_others_are_kept() {
    let world =
        World::new(|_, request| request.ends_with("/0/1").then_some(StatusCode::BAD_REQUEST));
    let root = folder(&[("a", b"1"), ("b", b"22"), ("c", b"333")]);
    let summary = world.upload(root.path());
    assert_eq!(summary.files, 2);
    let reason = summary.reason.expect("a reason");
    assert_eq!(reason, "1 file is not kept: b: S3 answers 400 Bad Request");
    let kept = world.files.kept(&world.attempt());
    assert_eq!(kept.keys().collect::<Vec<_>>(), ["a", "c"]);
}

/// A cancel or a Spot notice in the middle: the files up to there are kept, with their manifest.
#[test]
fn an_upload_that_is_told_to_end_keeps_what_it_has() {
    let (hangs_now, hung) = std::sync::mpsc::channel();
    let world = World::new(move |count, request| {
        // The second batch goes on for ever, after its first hundred files.
        let hangs = request.starts_with("PUT") && !request.contains("manifest") && count > 601;
        hangs.then(|| {
            let _over = hangs_now.send(());
            StatusCode::SERVICE_UNAVAILABLE
        })
    });
    let root = tempfile::tempdir().expect("a folder");
    for number in 0..1_000 {
        fs::write(root.path().join(number.to_string()), "x").expect("a file");
    }
    let mut child = world.start(root.path());
    let mut reports = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    reports.read_line(&mut line).expect("a report");
    assert_eq!(line, "so far 500:500\n");
    hung.recv_timeout(Duration::from_secs(60))
        .expect("a file that hangs");
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a pid");
    kill_process(pid, Signal::TERM).expect("it runs");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut reports, &mut rest).expect("reports");
    child.wait().expect("it ends");
    let summary = runner_summary(&rest);
    let reason = summary.reason.expect("a reason");
    assert!(
        reason.contains("files are not kept")
            && reason.contains("the time for the upload was over"),
        "{reason}"
    );
    // Those of the second batch, too, that were sent before it was told.
    assert!((501..1_000).contains(&summary.files), "{}", summary.files);
    let kept = world.files.kept(&world.attempt()).len();
    assert_eq!(u32::try_from(kept).ok(), Some(summary.files));
}

/// Killed in the middle: every file that a manifest names is there.
#[test]
fn an_upload_that_is_killed_leaves_whole_batches() {
    let world = World::new(|count, request| {
        let hangs = request.starts_with("PUT") && count > 700;
        hangs.then_some(StatusCode::SERVICE_UNAVAILABLE)
    });
    let root = tempfile::tempdir().expect("a folder");
    for number in 0..1_000 {
        fs::write(root.path().join(number.to_string()), "x").expect("a file");
    }
    let mut child = world.start(root.path());
    let mut reports = BufReader::new(child.stdout.take().expect("piped"));
    reports.read_line(&mut String::new()).expect("a report");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert_eq!(world.files.kept(&world.attempt()).len(), 500);
}

fn files(batch: u32, contents: &[&[u8]]) -> Value {
    let file = |content: &&[u8]| FileToUpload {
        bytes: content.len() as u64,
        sha256: hash(content),
    };
    let step = UploadStep::Files {
        batch,
        files: contents.iter().map(file).collect(),
    };
    serde_json::to_value(step).expect("JSON")
}

#[tokio::test]
async fn a_token_opens_its_own_open_attempt_and_nothing_else() {
    let world = World::new(no_fault);
    let (token, own) = (world.secret.token(), world.attempt().to_string());
    let ask = files(0, &[b"x"]);
    assert_eq!(world.step(&ask).await.0, 200);
    let other = AttemptSecret::of_bits(8).token();
    let refused = [
        (own.clone(), other.expose().to_owned()),
        (own.clone(), String::new()),
        (own.clone(), world.secret.expose().to_owned()),
        (own.clone(), world.secret.nonce()),
        (own.clone(), token.hash()),
        (
            world.execution.id.attempt(2).to_string(),
            token.expose().to_owned(),
        ),
        (
            Wish::of("other", 5).execution().id.attempt(1).to_string(),
            token.expose().to_owned(),
        ),
        ("..".to_owned(), token.expose().to_owned()),
    ];
    for (attempt, shown) in refused {
        let answer = world.step_of(&attempt, &shown, &ask).await;
        assert_eq!(answer, (401, json!("unauthorized")), "{attempt} {shown}");
    }
    close(&world.store, &world.execution, 0).await;
    assert_eq!(world.step(&ask).await, (401, json!("unauthorized")));
}

#[tokio::test]
async fn what_is_asked_for_again_is_the_same_and_other_things_are_refused() {
    let world = World::new(no_fault);
    let first = world.step(&files(0, &[b"x", b"yy"])).await;
    assert_eq!(world.step(&files(0, &[b"x", b"yy"])).await, first);
    let answer: UploadAnswer = serde_json::from_value(first.1).expect("an answer");
    assert_eq!(answer.requests.len(), 2);
    for (step, refusal) in [
        (files(0, &[b"x"]), (409, "batch_differs")),
        (files(2, &[b"x"]), (409, "batch_missing")),
        (
            json!({"step": "manifest", "batch": 1, "bytes": 1, "sha256": hash(b"x")}),
            (409, "batch_missing"),
        ),
        (
            json!({"step": "parts", "batch": 0, "first": 1, "sha256": [hash(b"x")]}),
            (409, "not_in_parts"),
        ),
        (
            json!({"step": "complete", "batch": 0, "parts": []}),
            (409, "not_in_parts"),
        ),
        (
            json!({"step": "files", "batch": 1, "files": []}),
            (422, "invalid_request"),
        ),
        (
            json!({"step": "files", "batch": 1, "files": [{"bytes": 1, "sha256": "x"}]}),
            (422, "invalid_request"),
        ),
        (json!({"step": "other", "batch": 1}), (400, "invalid_json")),
        (
            json!({"step": "files", "batch": 1, "files": [], "more": 1}),
            (400, "invalid_json"),
        ),
        (
            json!({"step": "large", "batch": 1, "bytes": 20_000_000_001_u64}),
            (413, "too_many_artifacts"),
        ),
    ] {
        let (status, code) = world.step(&step).await;
        assert_eq!((status, code), (refusal.0, json!(refusal.1)), "{step}");
    }
    let large = json!({"step": "large", "batch": 1, "bytes": 3 * PART_BYTES});
    assert_eq!(world.step(&large).await.0, 200);
    for (first, count, status) in [
        (1, 3, 200),
        (3, 1, 200),
        (0, 1, 409),
        (3, 2, 409),
        (4, 1, 409),
    ] {
        let step =
            json!({"step": "parts", "batch": 1, "first": first, "sha256": vec![hash(b"x"); count]});
        assert_eq!(world.step(&step).await.0, status, "{step}");
    }
    let part = json!({"etag": "x", "sha256": hash(b"x")});
    let complete = json!({"step": "complete", "batch": 1, "parts": [part, part, part]});
    assert_eq!(world.step(&complete).await, (409, json!("parts_refused")));
    let batch = world
        .store
        .upload_batch(&world.attempt(), 1)
        .await
        .expect("it answers");
    assert_eq!(batch.expect("it is recorded").files, 3);
}

/// The same token opens the request of its attempt, and no other does.
#[tokio::test]
async fn a_token_opens_the_request_of_its_attempt() {
    let world = World::new(no_fault);
    let ask = async |attempt: String, token: String| {
        let mut request = ApiGatewayProxyRequest::default();
        request.http_method = Method::GET;
        request.path = Some(format!("/attempts/{attempt}/request"));
        let bearer = format!("Bearer {token}").parse().expect("a header");
        request.headers.insert("authorization", bearer);
        assert!(attempts::takes(&request));
        let answer = attempts::request(&world.store, &request).await;
        let body = answer.body.expect("a body").to_vec();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        (answer.status_code, body)
    };
    let (own, token) = (
        world.attempt().to_string(),
        world.secret.token().expose().to_owned(),
    );
    let (status, body) = ask(own.clone(), token.clone()).await;
    assert_eq!(status, 200);
    assert_eq!(
        body["environment"][0],
        json!({"name": "MYCLI_COMMAND", "value": "true"})
    );
    let other = AttemptSecret::of_bits(8).token().expose().to_owned();
    assert_eq!(ask(own.clone(), other).await.0, 401);
    assert_eq!(
        ask(world.execution.id.attempt(2).to_string(), token.clone())
            .await
            .0,
        401
    );
    close(&world.store, &world.execution, 0).await;
    assert_eq!(ask(own, token).await.0, 401);
}
