//! How a server is reached: credentials, redirects, failures that pass and failures that stay.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use runner::order::FetchFaultKind;
use serde_json::json;

use super::{basic, fetch, key, order, program, start};
use crate::git_server::{Habits, HttpServer, KINDS_OF_KEYS, Origin, SshServer};

const TOKEN: &str = "tok-3n-planted";

#[test]
fn each_kind_of_key_opens_a_repository() {
    let server = SshServer::new();
    for name in ["user"]
        .into_iter()
        .chain(KINDS_OF_KEYS.map(|(name, _)| name))
    {
        let further =
            json!({"credentials": key(&server.key(name)), "known_hosts": server.pin("host")});
        assert_eq!(fetch(&server.url(), further).text("f"), "main\n", "{name}");
    }
}

#[test]
fn a_server_that_is_not_the_pinned_one_learns_nothing() {
    let server = SshServer::new();
    for program in ["library", "system"] {
        for pins in [server.pin("other"), String::new()] {
            let credentials = key(&server.key("user"));
            let further = json!({"credentials": credentials, "known_hosts": pins, "git": program});
            let got = fetch(&server.url(), further);
            assert!(
                got.reason()
                    .to_lowercase()
                    .contains("host key verification failed"),
                "{}",
                got.reason()
            );
            assert_eq!(got.kind(), FetchFaultKind::Final);
        }
    }
}

#[test]
fn keys_that_do_not_help_are_told_apart() {
    let server = SshServer::new();
    let reason = |credentials| {
        let further = json!({"credentials": credentials, "known_hosts": server.pin("host")});
        fetch(&server.url(), further).reason().to_owned()
    };
    assert!(reason(key(&server.key("other"))).contains("does not accept the key of GIT_SSH_KEY"));
    assert!(reason(json!([])).contains("asks for a key, and there is none for it"));
    let planted = format!("{TOKEN}\n");
    let unreadable = reason(key(&planted));
    assert!(unreadable.contains("is not a private key") && !unreadable.contains(TOKEN));
}

#[test]
fn a_token_is_shown_to_its_own_server_and_only_when_asked() {
    let private = HttpServer::new(Habits {
        login: Some("x-access-token:tok-3n-planted"),
        ..Habits::default()
    });
    let public = HttpServer::new(Habits::default());
    for program in ["library", "system"] {
        let with = |credentials| json!({"credentials": credentials, "git": program});
        let token = basic("x-access-token", TOKEN);
        assert_eq!(
            fetch(&private.url(), with(token.clone())).text("f"),
            "main\n"
        );
        // A server that asks for nothing is shown nothing.
        assert_eq!(fetch(&public.url(), with(token)).text("f"), "main\n");
        assert_eq!(public.shown(), Vec::<String>::new());
        for credentials in [json!([]), basic("x-access-token", "wr0ng")] {
            let got = fetch(&private.url(), with(credentials));
            assert_eq!(got.kind(), FetchFaultKind::Final, "{got:?}");
            assert!(!format!("{got:?}").contains("wr0ng"));
        }
        let config =
            fetch(&private.url(), with(basic("x-access-token", TOKEN))).text(".git/config");
        assert!(
            !config.contains(TOKEN) && !config.contains("credential"),
            "{config}"
        );
    }
}

#[test]
fn a_redirect_is_followed_without_the_token() {
    let target = Box::leak(Box::new(HttpServer::new(Habits::default())));
    let elsewhere: &'static str = Box::leak(target.url_of("").trim_end_matches('/').into());
    let login = Some("x-access-token:tok-3n-planted");
    let server = HttpServer::new(Habits {
        login,
        elsewhere: Some(elsewhere),
        ..Habits::default()
    });
    let got = fetch(
        &server.url(),
        json!({"credentials": basic("x-access-token", TOKEN)}),
    );
    assert_eq!(got.text("f"), "main\n");
    assert!(!server.shown().is_empty(), "its own server asked for it");
    assert_eq!(target.shown(), Vec::<String>::new());
    // One that asks for a credential itself gets none either.
    let private: &'static HttpServer = Box::leak(Box::new(HttpServer::new(Habits {
        login,
        ..Habits::default()
    })));
    let elsewhere: &'static str = Box::leak(private.url_of("").trim_end_matches('/').into());
    let server = HttpServer::new(Habits {
        elsewhere: Some(elsewhere),
        ..Habits::default()
    });
    let got = fetch(
        &server.url(),
        json!({"credentials": basic("x-access-token", TOKEN)}),
    );
    got.fails_with("authentication failed");
    assert_eq!(private.shown(), Vec::<String>::new());
}

#[test]
fn a_failure_that_may_pass_is_tried_three_times() {
    let server = HttpServer::new(Habits {
        first: &[503, 429],
        ..Habits::default()
    });
    let got = fetch(&server.url(), json!({}));
    assert_eq!(got.text("f"), "main\n");
    assert_eq!(got.tried_again(), 2, "{}", got.notes);
    let server = HttpServer::new(Habits {
        first: &[500; 20],
        ..Habits::default()
    });
    let got = fetch(&server.url(), json!({}));
    got.fails_with("returned error: 500");
    assert_eq!(server.asked(), 3);
}

#[test]
fn a_failure_that_stays_is_not_tried_again() {
    for (status, words) in [
        (403, "refuses access"),
        (404, "repository not found"),
        (410, "not found"),
    ] {
        let first: &'static [u16] = Box::leak(Box::new([status; 20]));
        let server = HttpServer::new(Habits {
            first,
            ..Habits::default()
        });
        let got = fetch(&server.url(), json!({}));
        assert!(got.reason().contains(words), "{}", got.reason());
        assert_eq!((got.kind(), server.asked()), (FetchFaultKind::Final, 1));
    }
}

#[test]
fn a_server_that_is_not_there_is_tried_three_times() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = closed.local_addr().expect("an address");
    drop(closed);
    let got = fetch(&format!("http://{address}/x.git"), json!({}));
    got.fails_with("Connection refused");
    assert_eq!(got.tried_again(), 2, "{}", got.notes);
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let server = HttpServer::new(Habits {
        silent: true,
        ..Habits::default()
    });
    let got = fetch(&server.url(), json!({"network": {"silence_seconds": 1}}));
    got.fails_with("no byte came for 1 s");
    assert_eq!(got.tried_again(), 2, "{}", got.notes);
}

#[test]
fn a_server_of_plain_files_is_refused_at_once_and_git_reads_it() {
    let server = HttpServer::new(Habits {
        plain: true,
        ..Habits::default()
    });
    let got = fetch(&server.url(), json!({"reference": "deadbee1"}));
    assert!(
        got.reason().contains("served as plain files") && got.reason().contains("--git system"),
        "{}",
        got.reason()
    );
    assert!(server.asked() <= 2);
    let got = fetch(&server.url(), json!({"git": "system"}));
    assert_eq!(got.text("f"), "main\n");
}

/// A certificate for 127.0.0.1 by an authority of the test's own, and a server with it.
#[test]
fn a_further_authority_is_trusted_and_an_unknown_one_is_not() {
    let backend = HttpServer::new(Habits::default());
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        // One of an authority would not be taken for a server's.
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &at("key"), "-out", &at("certificate")])
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl").success());
    let pem = fs::read_to_string(at("certificate")).expect("read");
    let address = tls_before(
        &backend.url_of(""),
        &pem,
        &fs::read_to_string(at("key")).expect("read"),
    );
    let url = format!("https://{address}/project.git");
    let got = fetch(&url, json!({"network": {"authorities": pem}}));
    assert_eq!(got.text("f"), "main\n");
    let got = fetch(&url, json!({}));
    got.fails_with("ertificate");
    assert_eq!(got.kind(), FetchFaultKind::Final);
}

/// Serves TLS before an HTTP server, one connection after the other. Returns its address.
fn tls_before(backend: &str, certificate: &str, key: &str) -> String {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let certificates =
        vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .expect("they fit");
    let config = std::sync::Arc::new(config);
    let backend = backend
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (config, backend) = (std::sync::Arc::clone(&config), backend.clone());
            thread::spawn(move || pass_on(stream, config, &backend));
        }
    });
    address
}

/// Passes requests on, each with its answer: git's are short, so a pause ends one.
fn pass_on(
    stream: std::net::TcpStream,
    config: std::sync::Arc<rustls::ServerConfig>,
    backend: &str,
) -> Option<()> {
    let connection = rustls::ServerConnection::new(config).ok()?;
    let mut tls = rustls::StreamOwned::new(connection, stream);
    let mut backend = std::net::TcpStream::connect(backend).ok()?;
    tls.sock
        .set_read_timeout(Some(Duration::from_millis(20)))
        .ok()?;
    backend
        .set_read_timeout(Some(Duration::from_millis(20)))
        .ok()?;
    let mut buffer = [0; 16 * 1024];
    loop {
        match tls.read(&mut buffer) {
            Ok(0) => return None,
            Ok(read) => backend.write_all(&buffer[..read]).ok()?,
            Err(error) if is_pause(&error) => {}
            Err(_) => return None,
        }
        match backend.read(&mut buffer) {
            Ok(0) => return None,
            Ok(read) => tls.write_all(&buffer[..read]).ok()?,
            Err(error) if is_pause(&error) => {}
            Err(_) => return None,
        }
    }
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
    )
}

/// While a fetch waits for a server, no process of it has the token among its arguments or
/// variables.
#[test]
fn no_process_of_a_fetch_shows_a_token() {
    let server = HttpServer::new(Habits {
        silent: true,
        ..Habits::default()
    });
    let folder = tempfile::tempdir().expect("a folder");
    let (credentials, ssh_key) = (basic("x-access-token", TOKEN), "planted-key");
    let mut all = credentials.as_array().expect("a list").clone();
    all.extend(key(ssh_key).as_array().expect("a list").clone());
    let order = order(folder.path(), &server.url(), json!({"credentials": all}));
    let mut child = start(
        Command::new(program()).stderr(Stdio::null()),
        &["fetch"],
        &order,
    );
    while !is_connected(&server) {
        thread::yield_now();
    }
    let mut seen = 0;
    for process in fs::read_dir("/proc").expect("read").flatten() {
        let at = |name: &str| fs::read(process.path().join(name)).unwrap_or_default();
        let (arguments, variables) = (at("cmdline"), at("environ"));
        let is_ours = String::from_utf8_lossy(&arguments).contains("mycli-runner");
        seen += usize::from(is_ours);
        for text in [arguments, variables] {
            let text = String::from_utf8_lossy(&text);
            assert!(!text.contains(TOKEN) && !text.contains(ssh_key), "{text}");
        }
    }
    assert!(seen >= 2, "the fetch and its child were there");
    child.kill().expect("killed");
    child.wait().expect("ours");
}

/// Whether the server has a connection. It answers nothing, so it counts no request.
fn is_connected(server: &HttpServer) -> bool {
    let port = server.url().rsplit(':').next().and_then(|rest| {
        let digits = rest.split('/').next()?;
        digits.parse::<u16>().ok()
    });
    let port = format!(":{:04X} ", port.expect("a port"));
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    // 01: established (tcp_states.h)
    table
        .lines()
        .any(|line| line.contains(&port) && line.contains(" 01 "))
}

#[test]
fn a_repository_of_this_machine_needs_git_and_says_so() {
    let origin = Origin::new();
    let got = super::fetch_by(
        Command::new(program()).env("PATH", "/nowhere"),
        &origin.path().display().to_string(),
        json!({}),
    );
    got.fails_with("git is not on this machine");
}
