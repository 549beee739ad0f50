//! Large files (Git LFS), from a server that speaks its protocol and from a repository of this
//! machine.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Method, Response, StatusCode, Uri, header},
    routing::any,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{basic, fetch};
use crate::git_server::{Habits, HttpServer, Origin, git};

const CONTENT: &[u8] = b"a large file, in principle\n";

fn oid() -> String {
    hex::encode(Sha256::digest(CONTENT))
}

/// A repository with a pointer, and one that is only text.
fn origin() -> Origin {
    let origin = Origin::new();
    let work = origin.folder().join("large-work");
    fs::create_dir(&work).expect("made");
    git(&work, &["init", "-q", "-b", "main"]);
    let pointer = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n",
        oid(),
        CONTENT.len()
    );
    for (name, text) in [
        (
            ".gitattributes",
            "*.bin filter=lfs diff=lfs merge=lfs -text\n",
        ),
        ("folder/a.bin", &pointer),
        ("pointer.txt", &pointer),
        ("small.bin", "no pointer\n"),
    ] {
        let file = work.join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(file, text).expect("written");
    }
    git(&work, &["add", "."]);
    git(&work, &["update-index", "--chmod=+x", "folder/a.bin"]);
    git(&work, &["commit", "-q", "-m", "large"]);
    git(
        origin.folder(),
        &["clone", "-q", "--mirror", "large-work", "large.git"],
    );
    origin
}

/// The behaviour of an LFS server, and the requests that it got.
#[derive(Clone)]
struct Lfs {
    /// The `user:password` that it asks for.
    login: Option<&'static str>,
    /// The content that it gives as the file.
    content: &'static [u8],
    /// The git server that it passes everything else on to.
    git: String,
    /// The store of files, if that is another server.
    store: Option<String>,
    /// Where its own store redirects to. Its batch answers then give headers that prove something.
    moved_to: Option<String>,
    /// The paths and `Authorization` headers of requests.
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

struct LfsServer {
    url: String,
    seen: Arc<Mutex<Vec<(String, String)>>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for LfsServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn serve(lfs: Lfs) -> LfsServer {
    let _first = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let seen = Arc::clone(&lfs.seen);
    let router = Router::new()
        .fallback(any(answer))
        .with_state((lfs, url.clone()));
    runtime.spawn(async move { axum::serve(listener, router).await });
    LfsServer {
        url,
        seen,
        runtime: Some(runtime),
    }
}

async fn answer(
    State((lfs, own)): State<(Lfs, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response<Body> {
    let shown = headers
        .get(header::AUTHORIZATION)
        .map(|value| value.to_str().unwrap_or_default().to_owned())
        .unwrap_or_default();
    let path = uri.path().to_owned();
    lfs.seen
        .lock()
        .expect("seen")
        .push((path.clone(), shown.clone()));
    if let (true, Some(moved_to)) = (path.starts_with("/store/"), &lfs.moved_to) {
        let moved = Response::builder()
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header(header::LOCATION, format!("{moved_to}{path}"));
        return moved.body(Body::empty()).expect("an answer");
    }
    if path.starts_with("/store/") {
        return Response::new(Body::from(lfs.content));
    }
    if let Some(login) = lfs.login
        && shown != format!("Basic {}", BASE64_STANDARD.encode(login))
    {
        let refused = Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header(header::WWW_AUTHENTICATE, "Basic realm=\"git\"");
        return refused.body(Body::empty()).expect("an answer");
    }
    if path.ends_with("/info/lfs/objects/batch") {
        let asked: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            (&asked["operation"], &method),
            (&json!("download"), &Method::POST)
        );
        let store = lfs.store.as_ref().unwrap_or(&own);
        let objects: Vec<_> = asked["objects"]
            .as_array()
            .expect("objects")
            .iter()
            .map(|object| {
                let oid = object["oid"].as_str().expect("an id");
                let mut action = json!({"href": format!("{store}/store/{oid}")});
                if lfs.store.is_some() {
                    action["header"] = json!({"X-Signed": "yes"});
                }
                if lfs.moved_to.is_some() {
                    action["header"] = json!({"Authorization": "Basic b3duOnBsYW50ZWQ="});
                }
                json!({"oid": oid, "size": object["size"], "actions": {"download": action}})
            })
            .collect();
        let text = json!({"transfer": "basic", "objects": objects}).to_string();
        return Response::new(Body::from(text));
    }
    // Everything else is git's.
    let client = reqwest::Client::new();
    let sent = client
        .request(method, format!("{}{uri}", lfs.git.trim_end_matches('/')))
        .headers(headers)
        .body(body)
        .send()
        .await
        .expect("git's server answers");
    let mut passed = Response::builder().status(sent.status());
    if let Some(kind) = sent.headers().get(header::CONTENT_TYPE) {
        passed = passed.header(header::CONTENT_TYPE, kind);
    }
    passed
        .body(Body::from(sent.bytes().await.expect("a body")))
        .expect("an answer")
}

fn lfs(server: &HttpServer) -> Lfs {
    Lfs {
        login: None,
        content: CONTENT,
        git: server.url_of(""),
        store: None,
        moved_to: None,
        seen: Arc::default(),
    }
}

#[test]
fn pointers_become_files_where_the_attribute_says_so() {
    let server = HttpServer::of(origin(), Habits::default());
    let lfs = serve(lfs(&server));
    let url = format!("{}/large.git", lfs.url);
    let got = fetch(&url, json!({"lfs": true}));
    assert_eq!(got.text("folder/a.bin").as_bytes(), CONTENT, "{got:?}");
    assert!(got.text("pointer.txt").starts_with("version "));
    assert_eq!(got.text("small.bin"), "no pointer\n");
    let mode = fs::metadata(got.clone().join("folder/a.bin")).expect("it is there");
    assert_eq!(mode.permissions().mode() & 0o100, 0o100);
    let object = format!(
        ".git/lfs/objects/{}/{}/{}",
        &oid()[..2],
        &oid()[2..4],
        oid()
    );
    assert_eq!(got.text(&object).as_bytes(), CONTENT);
    // Without being asked for they stay pointers.
    assert!(
        fetch(&url, json!({}))
            .text("folder/a.bin")
            .starts_with("version ")
    );
}

#[test]
fn the_token_goes_to_the_servers_own_api_and_not_to_a_store_elsewhere() {
    let login = Some("x-access-token:tok-3n");
    let git_server = HttpServer::of(
        origin(),
        Habits {
            login,
            ..Habits::default()
        },
    );
    let store = serve(lfs(&git_server));
    let server = serve(Lfs {
        login,
        store: Some(store.url.clone()),
        ..lfs(&git_server)
    });
    let further = json!({"lfs": true, "credentials": basic("x-access-token", "tok-3n")});
    let got = fetch(&format!("{}/large.git", server.url), further);
    assert_eq!(got.text("folder/a.bin").as_bytes(), CONTENT, "{got:?}");
    let seen = store.seen.lock().expect("seen");
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|(_, shown)| shown.is_empty()), "{seen:?}");
    let seen = server.seen.lock().expect("seen");
    let batches: Vec<_> = seen
        .iter()
        .filter(|(path, _)| path.ends_with("/batch"))
        .collect();
    assert!(
        batches.iter().any(|(_, shown)| !shown.is_empty()),
        "{batches:?}"
    );
}

#[test]
fn the_headers_of_a_file_do_not_follow_a_redirect_to_another_server() {
    let git_server = HttpServer::of(origin(), Habits::default());
    let other = serve(lfs(&git_server));
    let server = serve(Lfs {
        moved_to: Some(other.url.clone()),
        ..lfs(&git_server)
    });
    let got = fetch(&format!("{}/large.git", server.url), json!({"lfs": true}));
    assert_eq!(got.text("folder/a.bin").as_bytes(), CONTENT, "{got:?}");
    let is_shown = |server: &LfsServer| {
        let seen = server.seen.lock().expect("seen");
        let store = seen.iter().filter(|(path, _)| path.starts_with("/store/"));
        store
            .map(|(_, shown)| !shown.is_empty())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (is_shown(&server), is_shown(&other)),
        (vec![true], vec![false])
    );
}

#[test]
fn a_damaged_file_is_not_taken() {
    let server = HttpServer::of(origin(), Habits::default());
    let lfs = serve(Lfs {
        content: b"a large file, in PRINCIPLE\n",
        ..lfs(&server)
    });
    let got = fetch(&format!("{}/large.git", lfs.url), json!({"lfs": true}));
    assert!(got.reason().contains("came damaged"), "{}", got.reason());
}

#[test]
fn files_of_a_repository_of_this_machine_are_copied() {
    let origin = origin();
    let repo = origin.folder().join("large.git");
    let got = fetch(&repo.display().to_string(), json!({"lfs": true}));
    assert!(got.reason().contains(&oid()), "{}", got.reason());
    let folder = repo
        .join("lfs/objects")
        .join(&oid()[..2])
        .join(&oid()[2..4]);
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join(oid()), CONTENT).expect("written");
    let got = fetch(&repo.display().to_string(), json!({"lfs": true}));
    assert_eq!(got.text("folder/a.bin").as_bytes(), CONTENT);
}
