//! The settings of an installation. They are the same for every execution that it runs.

use crate::{
    ecs::NetworkConfiguration,
    limit::{CapacityPool, RateKey},
    price::{AttemptPrice, PriceList},
    quota::{Quotas, Rate},
    request::{Defaults, FieldError, ImageRef, LaunchRequest, Place},
};
use serde::{Deserialize, Serialize};

/// The settings of one installation (a stack on AWS, or one machine).
#[derive(Clone, Debug)]
pub struct Settings {
    /// The ECS cluster that tasks run in.
    pub cluster: String,
    /// The log group of their output.
    pub log_group: String,
    /// The values for keys that a request leaves out.
    pub defaults: Defaults,
    /// The settings of each pool.
    pub quotas: Quotas,
    /// How fast `RunTask` may be called, over all pools: [`crate::quota::RUN_TASK_RATE`] unless
    /// AWS raised it; `None` on one machine.
    pub run_task_rate: Option<Rate>,
    /// How many refusals in a row, or interruptions of one execution, make an execution change from
    /// Fargate Spot to on-demand capacity; `None` for never.
    pub spot_fallback_after: Option<u32>,
    /// How fast task definitions may be registered: [`crate::quota::DEFINITIONS_RATE`] on AWS;
    /// `None` on one machine.
    pub definitions_rate: Option<Rate>,
    /// The roles and secrets of the account that a request may name; `None` on one machine, where
    /// nothing is checked.
    pub allowed: Option<Allowed>,
    /// The images that bring the runner into a task; `None` on one machine.
    pub runner_images: Option<RunnerImages>,
    /// The keeping of runs' files in a bucket; `None` on one machine, and in a stack of a release
    /// that kept none.
    pub artifacts: Option<ArtifactSettings>,
    /// The network that tasks are in; `None` on one machine.
    pub network: Option<NetworkConfiguration>,
    /// The prices of tasks; `None` on one machine, where nothing is billed, and where they are not
    /// known.
    pub prices: Option<PriceList>,
    /// The stack's name as a tag of tasks, if costs are to be split by tags.
    pub task_tags: Option<String>,
    /// The number of seconds after which a launch surely started no task if ECS lists none. ECS is
    /// eventually consistent.
    pub unlisted_seconds: u32,
    /// How many seconds after a task's end more of its output may arrive. CloudWatch Logs shows a
    /// line some time after it was written, a file shows it at once.
    pub log_delay_seconds: u32,
}

/// The images of the containers of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunnerImages {
    /// The runner's own image, pinned by its digest.
    pub runner: ImageRef,
    /// An image with git, which fetches repositories in place of our library, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub git: Option<ImageRef>,
}

/// The keeping of runs' files in a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArtifactSettings {
    /// After how many days they are removed; `None` if this function need not know.
    pub retention_days: Option<u32>,
    /// The address of our API, as tasks reach it; `None` if this function need not know.
    pub task_api_url: Option<String>,
}

/// The longest address of our API that tasks can be given, in characters. A budget is set aside for
/// it; API Gateway's own addresses have about 70.
pub const TASK_API_URL_MAX: usize = 128;

impl Settings {
    /// The address of our API, as tasks reach it, if they do.
    #[must_use]
    pub fn task_api_url(&self) -> Option<&str> {
        self.artifacts.as_ref()?.task_api_url.as_deref()
    }

    /// The price of an attempt of this request in this pool, if it is known.
    #[must_use]
    pub fn attempt_price(
        &self,
        request: &LaunchRequest,
        pool: CapacityPool,
    ) -> Option<AttemptPrice> {
        let network = self.network.as_ref();
        let has_ipv4 = network.is_some_and(|network| network.assign_public_ip);
        self.prices.as_ref()?.attempt(request, pool, has_ipv4)
    }

    /// Whether wakeups are messages that cost something, so that a launcher rather watches a fast
    /// backlog than be woken for each slot. On one machine they cost nothing.
    #[must_use]
    pub fn wakeups_cost(&self) -> bool {
        self.defaults.place == Place::Aws
    }

    /// The rates that apply to launches from a pool. Each launch is a call of `RunTask`, so a pool's
    /// own rate that is no tighter is kept to by keeping to that.
    pub fn launch_rates(&self, pool: CapacityPool) -> impl Iterator<Item = (RateKey, Rate)> {
        let is_tighter = |of_pool: &Rate| {
            self.run_task_rate.is_none_or(|calls| {
                of_pool.burst < calls.burst || of_pool.per_second < calls.per_second
            })
        };
        let of_pool = self.quotas.of(pool).rate.filter(is_tighter);
        let rates = [
            (RateKey::RunTask, self.run_task_rate),
            (RateKey::Launches(pool), of_pool),
        ];
        rates
            .into_iter()
            .filter_map(|(key, rate)| Some((key, rate?)))
    }
}

impl Allowed {
    /// Completes roles that a request gives by name only, and returns the faults of what it must
    /// not name.
    #[must_use]
    pub fn apply(&self, request: &mut LaunchRequest) -> Vec<FieldError> {
        let mut faults = Vec::new();
        let mut fault = |field: &str, message: String| {
            faults.push(FieldError {
                field: field.into(),
                message,
            });
        };
        if let Some(role) = &request.task_role {
            let named = role.as_str();
            let arn = if named.contains(':') {
                named.to_owned()
            } else {
                format!("{}{named}", self.task_role_prefix)
            };
            match arn.parse() {
                Ok(role) if is_below(&arn, &self.task_role_prefix) => {
                    request.task_role = Some(role);
                }
                _ => fault(
                    "task_role",
                    format!(
                        "does not belong to this stack: its ARN must begin with {}",
                        self.task_role_prefix
                    ),
                ),
            }
        }
        if let Some(secret) = &request.registry_secret {
            let name = secret
                .as_str()
                .rsplit_once(":secret:")
                .map_or(secret.as_str(), |(_, name)| name);
            if !is_below(name, &self.registry_secret_prefix) {
                let message = format!(
                    "does not belong to this stack: its name must begin with {}",
                    self.registry_secret_prefix
                );
                fault("registry_secret", message);
            }
        }
        faults
    }
}

/// Whether a name begins with this prefix. Nothing does if the prefix is empty, so a function
/// without a prefix allows nothing.
fn is_below(name: &str, prefix: &str) -> bool {
    !prefix.is_empty() && name.starts_with(prefix)
}

/// The roles and secrets that a request may name in the stack's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The prefix of a task role's ARN: account and path, up to the last slash.
    pub task_role_prefix: String,
    /// The prefix of a registry secret's name.
    pub registry_secret_prefix: String,
}
