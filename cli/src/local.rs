//! Stands where the crate `local` will: the same surface, which says that this build has no runner.

use std::{future::Future, net::SocketAddr, path::PathBuf};

use domain::key::ApiKey;
use reqwest::Method;

#[derive(Clone, Debug)]
#[expect(dead_code, reason = "read by the crate that replaces this")]
pub(crate) struct Options {
    pub(crate) dir: PathBuf,
    pub(crate) host_only: bool,
    pub(crate) vcpus: Option<f64>,
    pub(crate) launch_rate: Option<f64>,
    pub(crate) submitter: String,
}

#[derive(Debug, thiserror::Error)]
#[error("this build of mycli cannot run on one machine")]
pub(crate) struct OpenError;

#[derive(Debug)]
pub(crate) struct Machine;

impl Machine {
    pub(crate) async fn open(_options: Options) -> Result<Self, OpenError> {
        Err(OpenError)
    }
    pub(crate) async fn start(&self) -> Result<(), OpenError> {
        Err(OpenError)
    }
    pub(crate) async fn call(&self, _method: Method, _path_and_query: &str, _body: Option<Vec<u8>>) -> (u16, Vec<u8>) {
        (500, Vec::new())
    }
    pub(crate) async fn changed(&self) {}
    pub(crate) async fn close(self) {}
}

pub(crate) async fn serve(
    _options: Options,
    _listen: SocketAddr,
    _key: ApiKey,
    _bound: impl FnOnce(SocketAddr),
    _shutdown: impl Future<Output = ()>,
) -> Result<(), OpenError> {
    Err(OpenError)
}

pub(crate) async fn supervise(_options: Options) -> Result<(), OpenError> {
    Err(OpenError)
}

pub(crate) struct Pruned {
    pub(crate) executions: u64,
}

pub(crate) async fn prune(_options: Options, _older_than: std::time::Duration) -> Result<Pruned, OpenError> {
    Err(OpenError)
}
