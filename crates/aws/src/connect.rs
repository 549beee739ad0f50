//! How this project connects to AWS.
//!
//! All clients of a process share one HTTP client, and so its connections and root certificates.
//! Its TLS is rustls over ring: AWS-LC may take up to a second for its first random bytes
//! (AWS-FACTS §5), and a cold start would wait for that.
//!
//! A function's credentials and region are those that Lambda puts into its environment. There is no
//! chain of profiles, SSO and instance metadata: it would make the binary larger, and its look-ups
//! are slow if they find nothing.

use std::{
    env, fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use aws_config::{
    AppName, BehaviorVersion, Region, SdkConfig,
    environment::EnvironmentVariableCredentialsProvider, retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::{
    Builder, Connector,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::{HttpClient, SharedHttpClient, http_client_fn};
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};

/// How long a connection may take to open. Within a region it takes milliseconds.
const CONNECT: Duration = Duration::from_secs(2);
/// How long one try of a call may take: longer than a slow RunTask takes, and far shorter than a
/// function may run.
const ATTEMPT: Duration = Duration::from_secs(8);
/// How long a call may take with its retries: below API Gateway's 29 s (AWS-FACTS §7), so that the
/// caller gets an answer.
const OPERATION: Duration = Duration::from_secs(20);
/// Tries of a call, including the first. A call that still fails is repeated by the queue or the
/// sweep, after a pause.
const ATTEMPTS: u32 = 3;
/// How long an idle connection is kept. A frozen function cannot see that the other end closed it,
/// so this is shorter than AWS's own limit of a minute or so.
const IDLE: Duration = Duration::from_secs(20);
/// The name of this project in the requests that it makes. A function uses its own name, so that
/// the account's trail shows which function made a call.
const APP_NAME: &str = "mycli";

/// The region is not set.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no region is set: AWS_REGION is missing or empty")]
pub struct NoRegion;

/// The configuration of a function, from the environment that Lambda gives it.
///
/// `AWS_ENDPOINT_URL` points all services at an emulator; `AWS_ENDPOINT_URL_SQS` and the like do so
/// for one service.
///
/// # Errors
/// [`NoRegion`].
pub fn from_environment() -> Result<SdkConfig, NoRegion> {
    let region = variable("AWS_REGION")
        .or_else(|| variable("AWS_DEFAULT_REGION"))
        .ok_or(NoRegion)?;
    let credentials = SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new());
    Ok(configuration(
        region,
        credentials,
        variable("AWS_ENDPOINT_URL"),
    ))
}

/// A configuration with a region, credentials and endpoint of the caller's choice.
#[must_use]
pub fn configuration(
    region: String,
    credentials: SharedCredentialsProvider,
    endpoint: Option<String>,
) -> SdkConfig {
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region))
        .credentials_provider(credentials)
        .http_client(http_client())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts())
        .service_config(ServiceEndpoints);
    let function = variable("AWS_LAMBDA_FUNCTION_NAME");
    config.set_app_name(AppName::new(function.unwrap_or_else(|| APP_NAME.to_owned())).ok());
    config.set_endpoint_url(endpoint);
    config.build()
}

/// How long calls may take.
#[must_use]
pub fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(ATTEMPT)
        .operation_timeout(OPERATION)
        .build()
}

/// An HTTP client that reads its root certificates beside the start of the process, not as part of
/// it.
///
/// Reading the system's certificates takes some 4 ms of a full core (144 certificates, release
/// build), and a function of 256 MB has a seventh of a core once its start is over. So the reading
/// begins here, on its own thread, and the first call waits only for the rest of it. The SDK's own
/// client would read them during the start. It would also make one more TLS connector (0.1 ms) for
/// each client that is built with it, only to check that it can; a client wrapped in a function
/// does not.
#[must_use]
pub fn http_client() -> SharedHttpClient {
    let tls = || Provider::Rustls(CryptoMode::Ring);
    let read_roots = move || drop(Connector::builder().tls_provider(tls()).build());
    // Without the thread, the first call reads them.
    let _begun = thread::Builder::new()
        .name("root-certificates".into())
        .spawn(read_roots);
    let client = Builder::new()
        .pool_idle_timeout(IDLE)
        .tls_provider(tls())
        .build_https();
    http_client_fn(move |settings, components| client.http_connector(settings, components))
}

/// A service's client, made when it is first used. Making one takes about 0.2 ms of a full core,
/// and most invocations use two of the six that a function may need. Only the store's client, which
/// all invocations use, is made at the function's start. A clone is the same client.
#[derive(Clone)]
pub(crate) struct Lazily<C> {
    config: SdkConfig,
    make: fn(&SdkConfig) -> C,
    client: Arc<OnceLock<C>>,
}

impl<C> Lazily<C> {
    /// A client of this configuration, made by `make`.
    pub(crate) fn of(config: &SdkConfig, make: fn(&SdkConfig) -> C) -> Self {
        Self {
            config: config.clone(),
            make,
            client: Arc::default(),
        }
    }
}

impl<C> Deref for Lazily<C> {
    type Target = C;

    fn deref(&self) -> &C {
        self.client.get_or_init(|| (self.make)(&self.config))
    }
}

impl<C> fmt::Debug for Lazily<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lazily").finish_non_exhaustive()
    }
}

/// Reads `AWS_ENDPOINT_URL_<SERVICE>`, as every AWS SDK does (SDKs and Tools Reference Guide,
/// "Service-specific endpoints").
#[derive(Debug)]
struct ServiceEndpoints;

impl LoadServiceConfig for ServiceEndpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        variable(&format!(
            "{}_{}",
            key.env(),
            key.service_id().to_uppercase().replace(' ', "_")
        ))
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
