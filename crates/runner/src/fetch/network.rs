//! The ways to a server: names, connections, certificates, proxies. No library of the image is
//! used, so a static program finds its way in an empty image too.

use std::{
    cell::OnceCell,
    error::Error as StdError,
    fs, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use hickory_resolver::{ResolverBuilder, TokioResolver};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::{net::TcpStream, runtime::Runtime};

use crate::order::{FetchFault, NetworkSettings};

/// How long a connection may take to be made. git waits as long as the system does, which is two
/// minutes and more; a server that does not answer within half a minute is tried again instead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How we name ourselves to servers. Some of them answer only to names that begin with `git/`.
pub(super) const USER_AGENT: &str = concat!("git/mycli-", env!("CARGO_PKG_VERSION"));

/// The count of bytes from servers. A watcher sees by it whether a fetch moves on.
#[derive(Clone, Debug, Default)]
pub struct ReceivedBytes(Arc<ReceivedBytesInner>);

#[derive(Debug, Default)]
struct ReceivedBytesInner {
    bytes: AtomicU64,
    awaited: AtomicBool,
}

impl ReceivedBytes {
    /// Counts bytes that came.
    pub(super) fn add(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes while `wait` waits that a server is waited for.
    pub(super) fn awaiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.0.awaited.store(true, Ordering::Relaxed);
        let waited = wait();
        self.0.awaited.store(false, Ordering::Relaxed);
        waited
    }

    /// The bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Whether a server is being waited for.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.0.awaited.load(Ordering::Relaxed)
    }
}

/// The ways to a server.
pub(crate) struct Network {
    runtime: Runtime,
    settings: NetworkSettings,
    /// Made when it is first needed: it reads certificates.
    client: OnceCell<reqwest::Client>,
    resolver: Resolver,
    received: ReceivedBytes,
}

impl Network {
    /// Makes them by the settings.
    ///
    /// # Errors
    /// When the system does not allow it.
    pub(crate) fn new(
        settings: &NetworkSettings,
        received: ReceivedBytes,
    ) -> Result<Self, FetchFault> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| {
                FetchFault::last(format!("cannot prepare for the network: {error}"))
            })?;
        Ok(Self {
            runtime,
            settings: settings.clone(),
            client: OnceCell::new(),
            resolver: Resolver::new(),
            received,
        })
    }

    /// Waits for a future.
    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.received.awaiting(|| self.runtime.block_on(future))
    }

    /// The HTTP client. It follows no redirect and sends no credentials by itself.
    ///
    /// # Errors
    /// When a setting cannot be read.
    pub(crate) fn client(&self) -> Result<&reqwest::Client, FetchFault> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = client(&self.settings, self.resolver.clone())?;
        Ok(self.client.get_or_init(|| client))
    }

    /// The count of bytes that came.
    pub(super) fn received(&self) -> &ReceivedBytes {
        &self.received
    }

    /// Connects to a host by TCP.
    ///
    /// # Errors
    /// When the name does not resolve, or none of its addresses answers.
    pub(super) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = match host.parse() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => self.resolver.lookup(host, port).await?,
        };
        let mut last = io::Error::other(format!("{host} has no address"));
        for address in addresses {
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }
}

/// Resolves names by hickory. glibc would load libraries of the image for it.
#[derive(Clone)]
struct Resolver(Arc<Result<TokioResolver, String>>);

impl Resolver {
    /// Makes it by the system's `resolv.conf` and `hosts`.
    fn new() -> Self {
        let made = TokioResolver::builder_tokio().and_then(ResolverBuilder::build);
        Self(Arc::new(made.map_err(|error| error.to_string())))
    }

    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let failed = |why: &str| io::Error::other(format!("cannot resolve {host}: {why}"));
        let resolver = self.0.as_ref().as_ref().map_err(|why| failed(why))?;
        let found = resolver
            .lookup_ip(host)
            .await
            .map_err(|error| failed(&error.to_string()))?;
        Ok(found.iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            // The port is filled in by the caller.
            let found = resolver.lookup(name.as_str(), 0).await;
            let boxed = |error| Box::new(error) as Box<dyn StdError + Send + Sync>;
            Ok(Box::new(found.map_err(boxed)?.into_iter()) as Addrs)
        })
    }
}

fn client(settings: &NetworkSettings, resolver: Resolver) -> Result<reqwest::Client, FetchFault> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(settings)?)
        .dns_resolver(Arc::new(resolver))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(USER_AGENT)
        .http1_only()
        .no_proxy();
    let exempt = settings
        .no_proxy
        .as_deref()
        .and_then(reqwest::NoProxy::from_string);
    let proxies = [
        (
            &settings.https_proxy,
            (|url| reqwest::Proxy::https(url)) as fn(&str) -> _,
            "https_proxy",
        ),
        (
            &settings.http_proxy,
            |url| reqwest::Proxy::http(url),
            "http_proxy",
        ),
    ];
    for (url, proxy, name) in proxies {
        if let Some(url) = url.as_deref().filter(|url| !url.is_empty()) {
            // The URL may hold a password, so the error does not repeat it.
            let proxy = proxy(url).map_err(|_| FetchFault::last(format!("{name} is not a URL")))?;
            builder = builder.proxy(proxy.no_proxy(exempt.clone()));
        }
    }
    builder
        .build()
        .map_err(|error| FetchFault::last(format!("cannot prepare for the network: {error}")))
}

/// TLS with Mozilla's authorities and those of the settings.
fn tls(settings: &NetworkSettings) -> Result<rustls::ClientConfig, FetchFault> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    for pem in further_authorities(settings)? {
        let mut has_any = false;
        for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
            // A system's own list may hold some that are too old to be read.
            has_any |= roots.add(certificate).is_ok();
        }
        if !has_any {
            return Err(FetchFault::last(
                "the further certificates are not certificates of authorities in PEM form",
            ));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| FetchFault::last(format!("cannot prepare TLS: {error}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn further_authorities(settings: &NetworkSettings) -> Result<Vec<Vec<u8>>, FetchFault> {
    let mut all: Vec<_> = settings
        .authorities
        .iter()
        .map(|pem| pem.clone().into_bytes())
        .collect();
    if let Some(path) = &settings.authorities_file {
        let read = fs::read(path).map_err(|error| {
            FetchFault::last(format!(
                "the certificates in {} cannot be read: {error}",
                path.display()
            ))
        });
        all.push(read?);
    }
    Ok(all)
}
