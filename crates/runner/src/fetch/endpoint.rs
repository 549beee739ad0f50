//! A server of the task's own host, which is asked without credentials or proxy.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Url;

use super::{
    error::chain,
    network::{Network, ReceivedBytes},
};
use crate::order::{FetchFault, NetworkSettings};

/// How long an answer may take. The server is on the same host.
const TIMEOUT: Duration = Duration::from_secs(2);

/// One address of such a server.
pub struct Endpoint {
    network: Network,
    url: Url,
}

impl Endpoint {
    /// The server at this address.
    ///
    /// # Errors
    /// When it is no address, or the system does not allow a connection.
    pub fn new(address: &str) -> Result<Self, FetchFault> {
        let url = address.parse().map_err(FetchFault::last)?;
        let network = Network::new(&NetworkSettings::default(), ReceivedBytes::default())?;
        Ok(Self { network, url })
    }

    /// Its answer.
    ///
    /// # Errors
    /// When there is none within two seconds, or none that is a success.
    pub fn get(&self) -> Result<Bytes, FetchFault> {
        let request = self
            .network
            .client()?
            .get(self.url.clone())
            .timeout(TIMEOUT);
        let answer = async { request.send().await?.error_for_status()?.bytes().await };
        self.network
            .wait(answer)
            .map_err(|error| FetchFault::passing(chain(&error)))
    }
}
