//! A stack's settings, read from the environment variables that its functions are given.

use std::{fmt::Display, str::FromStr};

use domain::{
    ecs::NetworkConfiguration,
    limit::CapacityPool,
    price::PriceList,
    quota::{DEFINITIONS_RATE, Quota, Quotas, RUN_TASK_RATE, Rate},
    request::{Defaults, Place, TaskSize, Timeout},
    settings::{Allowed, ArtifactSettings, RunnerImages, Settings},
};

use crate::ecs::Registration;

/// How fast Fargate accepts launches, for each kind of capacity separately (ECS Developer Guide,
/// "AWS Fargate throttling quotas").
const LAUNCHES: Rate = Rate {
    burst: 100.0,
    per_second: 20.0,
};
/// After how many seconds a started task is surely in ECS's lists. The lists lag by seconds. The
/// value is far above that, because a wrong `LOST` cannot be undone.
const UNLISTED_SECONDS: u32 = 120;
/// For how many seconds after a task's end CloudWatch Logs may still show another line. awslogs
/// sends at least every five seconds, and before the task counts as stopped. The rest is the time
/// until a line can be read.
const LOG_DELAY_SECONDS: u32 = 10;

/// The functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Accepts every request that writes.
    Submit,
    /// Starts and stops tasks, and asks ECS about them.
    Launcher,
    /// Turns events into history.
    StateTracker,
    /// Answers every request that reads.
    Query,
}

use Function::{Launcher, Query, StateTracker, Submit};

impl Function {
    /// The variables that this function is given: those it requires, and those that may be empty or
    /// missing.
    pub fn variables(self) -> impl Iterator<Item = &'static str> {
        let uses = move |(_, needed_by, may_have): &&(&str, &[Self], &[Self])| {
            needed_by.contains(&self) || may_have.contains(&self)
        };
        VARIABLES.iter().filter(uses).map(|(name, ..)| *name)
    }

    fn needs(self, name: &str) -> bool {
        VARIABLES
            .iter()
            .any(|(variable, needed_by, _)| *variable == name && needed_by.contains(&self))
    }
}

const ALL: &[Function] = &[Submit, Launcher, StateTracker, Query];
const SENDERS: &[Function] = &[Submit, Launcher, StateTracker];
/// The functions that accept the reruns of groups. The launcher of the release before was not given
/// these variables, so it starts without them.
const TAKES_IN: &[Function] = &[Launcher];
const JUDGES: &[Function] = &[Submit, Launcher, Query];

/// Each variable, the functions that require it, and the functions that can run without it.
const VARIABLES: [(&str, &[Function], &[Function]); 37] = [
    ("MYCLI_STACK", ALL, &[]),
    ("MYCLI_VERSION", ALL, &[]),
    ("MYCLI_TABLE", ALL, &[]),
    ("MYCLI_RETENTION_DAYS", ALL, &[]),
    ("MYCLI_LAUNCH_QUEUE_URL", SENDERS, &[]),
    ("MYCLI_CONTROL_QUEUE_URL", SENDERS, &[]),
    ("MYCLI_LOG_GROUP", &[Launcher, StateTracker, Query], &[]),
    ("MYCLI_CLUSTER", &[Launcher, StateTracker], &[]),
    ("MYCLI_SUBNETS", &[Launcher], &[]),
    ("MYCLI_SECURITY_GROUPS", &[], &[Launcher]),
    ("MYCLI_ASSIGN_PUBLIC_IP", &[Launcher], &[]),
    ("MYCLI_EXECUTION_ROLE_ARN", &[Launcher], &[]),
    ("MYCLI_TASK_ROLE_ARN", &[Launcher], &[]),
    ("MYCLI_SECRETS_PATH", &[Launcher], &[]),
    ("MYCLI_FAMILY_PREFIX", &[Launcher], &[]),
    ("MYCLI_TAG_TASKS", &[], &[Launcher]),
    // The launcher of the release before was not given it, so it starts without.
    ("MYCLI_RUNNER_IMAGE", &[], &[Launcher]),
    ("MYCLI_GIT_IMAGE", &[], &[Launcher]),
    // The functions of the release before were not given these, so they start without.
    ("MYCLI_ARTIFACTS_BUCKET", &[], JUDGES),
    ("MYCLI_ARTIFACT_RETENTION_DAYS", &[], &[Query]),
    ("MYCLI_TASK_API_URL", &[], &[Launcher]),
    ("MYCLI_TASK_ROLE_PREFIX", &[Submit], TAKES_IN),
    ("MYCLI_REGISTRY_SECRET_PREFIX", &[Submit], TAKES_IN),
    ("MYCLI_DEFAULT_IMAGE", &[Submit], TAKES_IN),
    ("MYCLI_DEFAULT_CPU", &[Submit], TAKES_IN),
    ("MYCLI_DEFAULT_MEMORY", &[Submit], TAKES_IN),
    ("MYCLI_DEFAULT_ARCH", &[Submit], TAKES_IN),
    ("MYCLI_DEFAULT_CAPACITY", &[Submit], TAKES_IN),
    ("MYCLI_DEFAULT_TIMEOUT", &[Submit], TAKES_IN),
    ("MYCLI_MAX_TIMEOUT", &[Submit], TAKES_IN),
    ("MYCLI_SPOT_VCPUS", &[], JUDGES),
    ("MYCLI_ON_DEMAND_VCPUS", &[], JUDGES),
    ("MYCLI_LAUNCHES_PER_SECOND", &[], &[Launcher, Query]),
    ("MYCLI_SPOT_FALLBACK_AFTER", &[], &[Launcher]),
    // The launcher of the release before was not given it, so it starts without.
    ("MYCLI_PRICES", &[], &[Launcher]),
    ("MYCLI_EVENT_BUS", &[StateTracker], &[]),
    // Empty in a stack without metrics. The functions of the release before were not given it.
    ("MYCLI_METRICS_NAMESPACE", &[], &[Launcher, StateTracker]),
];

/// The names of a stack and of its parts. A variable that a function is not given is empty here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The stack's short name.
    pub stack: String,
    /// The version of mycli that deployed the stack.
    pub version: String,
    /// The table of records.
    pub table: String,
    /// For how many days records are kept.
    pub retention_days: u32,
    /// The address of the launch queue.
    pub launch_queue_url: String,
    /// The address of the control queue.
    pub control_queue_url: String,
    /// The event bus that the ends of executions are sent to.
    pub event_bus: String,
    /// The bucket of the files that runs keep.
    pub artifacts_bucket: String,
    /// The namespace of the stack's metrics in CloudWatch; empty if it has none.
    pub metrics_namespace: String,
}

/// All settings of a function.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The settings of the handlers.
    pub settings: Settings,
    /// The names from which the adapters are built.
    pub names: Names,
    /// The parts that task definitions are built from; only the launcher registers any.
    pub registration: Option<Registration>,
}

/// The variables that are missing or wrong, each with its fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the function's environment variables are not those of a stack: {}; `mycli upgrade` sets them again", .0.join("; "))]
pub struct BadEnvironment(pub Vec<String>);

impl Installation {
    /// Reads the variables of this process.
    ///
    /// # Errors
    /// [`BadEnvironment`].
    pub fn from_environment(function: Function) -> Result<Self, BadEnvironment> {
        Self::read(function, |name| std::env::var(name).ok())
    }

    /// Reads the variables that a function needs. Reports every fault at once.
    ///
    /// # Errors
    /// [`BadEnvironment`].
    pub fn read(
        function: Function,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, BadEnvironment> {
        let mut reader = Reader {
            function,
            lookup,
            faults: Vec::new(),
        };
        let installation = Self {
            settings: reader.settings(),
            names: reader.names(),
            registration: reader.registration(),
        };
        reader.faults.sort_unstable();
        reader.faults.dedup();
        if reader.faults.is_empty() {
            Ok(installation)
        } else {
            Err(BadEnvironment(reader.faults))
        }
    }
}

/// Reads variables, and collects what is wrong with them.
struct Reader<L> {
    function: Function,
    lookup: L,
    faults: Vec<String>,
}

impl<L: Fn(&str) -> Option<String>> Reader<L> {
    fn names(&mut self) -> Names {
        Names {
            stack: self.text("MYCLI_STACK"),
            version: self.text("MYCLI_VERSION"),
            table: self.text("MYCLI_TABLE"),
            retention_days: self.parsed("MYCLI_RETENTION_DAYS").unwrap_or_default(),
            launch_queue_url: self.text("MYCLI_LAUNCH_QUEUE_URL"),
            control_queue_url: self.text("MYCLI_CONTROL_QUEUE_URL"),
            event_bus: self.text("MYCLI_EVENT_BUS"),
            artifacts_bucket: self.text("MYCLI_ARTIFACTS_BUCKET"),
            metrics_namespace: self.text("MYCLI_METRICS_NAMESPACE"),
        }
    }

    fn settings(&mut self) -> Settings {
        Settings {
            cluster: self.text("MYCLI_CLUSTER"),
            log_group: self.text("MYCLI_LOG_GROUP"),
            defaults: self.defaults(),
            quotas: Quotas::from([
                (CapacityPool::FargateSpot, self.quota("MYCLI_SPOT_VCPUS")),
                (CapacityPool::Fargate, self.quota("MYCLI_ON_DEMAND_VCPUS")),
            ]),
            run_task_rate: Some(self.run_task_rate()),
            spot_fallback_after: self
                .parsed("MYCLI_SPOT_FALLBACK_AFTER")
                .filter(|refusals| *refusals > 0),
            definitions_rate: Some(DEFINITIONS_RATE),
            allowed: Some(Allowed {
                task_role_prefix: self.text("MYCLI_TASK_ROLE_PREFIX"),
                registry_secret_prefix: self.text("MYCLI_REGISTRY_SECRET_PREFIX"),
            }),
            runner_images: self.runner_images(),
            artifacts: self.artifacts(),
            network: self.network(),
            prices: self.prices(),
            task_tags: self.task_tags(),
            unlisted_seconds: UNLISTED_SECONDS,
            log_delay_seconds: LOG_DELAY_SECONDS,
        }
    }

    fn defaults(&mut self) -> Defaults {
        let own = Defaults::aws();
        let (cpu, memory) = (
            self.parsed("MYCLI_DEFAULT_CPU"),
            self.parsed("MYCLI_DEFAULT_MEMORY"),
        );
        let size = match (cpu, memory) {
            (Some(cpu), Some(memory)) => TaskSize::new(cpu, memory),
            _ => Ok(own.size),
        };
        let size = self.noted("MYCLI_DEFAULT_CPU and MYCLI_DEFAULT_MEMORY", size);
        let max_timeout = self
            .timeout("MYCLI_MAX_TIMEOUT", Timeout::MAX)
            .unwrap_or(own.max_timeout);
        Defaults {
            image: self.parsed("MYCLI_DEFAULT_IMAGE").or(own.image),
            size: size.unwrap_or(own.size),
            arch: self.parsed("MYCLI_DEFAULT_ARCH").unwrap_or(own.arch),
            capacity: self
                .parsed("MYCLI_DEFAULT_CAPACITY")
                .unwrap_or(own.capacity),
            timeout: self
                .timeout("MYCLI_DEFAULT_TIMEOUT", max_timeout)
                .unwrap_or(own.timeout),
            max_timeout,
            place: Place::Aws,
        }
    }

    /// A pool's quota in whole vCPUs. Without a number the account's quota holds, as the sweep
    /// reads it.
    fn quota(&mut self, name: &str) -> Quota {
        let vcpus: Option<u32> = self.parsed(name);
        let rate = Rate {
            per_second: self.per_second(),
            ..LAUNCHES
        };
        Quota {
            cpu: vcpus.map(|vcpus| vcpus.saturating_mul(1024)),
            rate: Some(rate),
        }
    }

    fn run_task_rate(&mut self) -> Rate {
        let per_second = self.per_second();
        Rate {
            burst: per_second,
            per_second,
        }
    }

    /// Launches a second: Fargate's own number, unless AWS raised it for the account.
    fn per_second(&mut self) -> f64 {
        let asked: Option<u32> = self.parsed("MYCLI_LAUNCHES_PER_SECOND");
        asked
            .filter(|rate| *rate > 0)
            .map_or(RUN_TASK_RATE.per_second, f64::from)
    }

    fn network(&mut self) -> Option<NetworkConfiguration> {
        let (subnets, security_groups) = (
            self.list("MYCLI_SUBNETS"),
            self.list("MYCLI_SECURITY_GROUPS"),
        );
        let assign_public_ip = self.parsed("MYCLI_ASSIGN_PUBLIC_IP").unwrap_or_default();
        (!subnets.is_empty()).then_some(NetworkConfiguration {
            subnets,
            security_groups,
            assign_public_ip,
        })
    }

    fn runner_images(&mut self) -> Option<RunnerImages> {
        let git = self.parsed("MYCLI_GIT_IMAGE");
        self.parsed("MYCLI_RUNNER_IMAGE")
            .map(|runner| RunnerImages { runner, git })
    }

    fn artifacts(&mut self) -> Option<ArtifactSettings> {
        self.value("MYCLI_ARTIFACTS_BUCKET")?;
        Some(ArtifactSettings {
            retention_days: self.parsed("MYCLI_ARTIFACT_RETENTION_DAYS"),
            task_api_url: self.value("MYCLI_TASK_API_URL"),
        })
    }

    /// The prices that the stack was given, else those of its region.
    fn prices(&mut self) -> Option<PriceList> {
        if self.function != Launcher {
            return None;
        }
        let Some(given) = self.value("MYCLI_PRICES") else {
            return PriceList::of_region(&self.region());
        };
        // No run waits for an estimate of its cost.
        given
            .parse()
            .inspect_err(|error| tracing::warn!(%error, "the prices of the stack cannot be read"))
            .ok()
    }

    fn task_tags(&mut self) -> Option<String> {
        let tagged: Option<bool> = self.parsed("MYCLI_TAG_TASKS");
        tagged.unwrap_or_default().then(|| self.text("MYCLI_STACK"))
    }

    fn registration(&mut self) -> Option<Registration> {
        (self.function == Launcher).then(|| Registration {
            family_prefix: self.text("MYCLI_FAMILY_PREFIX"),
            execution_role: self.text("MYCLI_EXECUTION_ROLE_ARN"),
            task_role: self.text("MYCLI_TASK_ROLE_ARN"),
            secrets_path: self.text("MYCLI_SECRETS_PATH"),
            region: self.region(),
        })
    }

    /// The region, from Lambda's own variable; the stack sets none.
    fn region(&mut self) -> String {
        let region = ["AWS_REGION", "AWS_DEFAULT_REGION"]
            .into_iter()
            .find_map(|name| (self.lookup)(name));
        region.unwrap_or_else(|| {
            self.faults.push("AWS_REGION is missing".to_owned());
            String::new()
        })
    }

    /// The value, if there is one. Records a fault if it is missing and this function requires it.
    fn value(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty());
        if value.is_none() && self.function.needs(name) {
            self.faults.push(format!("{name} is missing"));
        }
        value
    }

    fn text(&mut self, name: &str) -> String {
        self.value(name).unwrap_or_default()
    }

    fn list(&mut self, name: &str) -> Vec<String> {
        let text = self.text(name);
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let parsed = self.value(name)?.parse();
        self.noted(name, parsed)
    }

    fn timeout(&mut self, name: &str, max: Timeout) -> Option<Timeout> {
        let parsed = Timeout::parse(&self.value(name)?, max);
        self.noted(name, parsed)
    }

    fn noted<T, E: Display>(&mut self, name: &str, result: Result<T, E>) -> Option<T> {
        result
            .map_err(|error| self.faults.push(format!("{name}: {error}")))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::request::{Arch, Capacity};

    use super::*;

    fn stack() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([
            ("AWS_REGION", "eu-west-1"),
            ("MYCLI_STACK", "team"),
            ("MYCLI_VERSION", "0.1.0"),
            ("MYCLI_TABLE", "mycli-team"),
            ("MYCLI_RETENTION_DAYS", "90"),
            (
                "MYCLI_LAUNCH_QUEUE_URL",
                "https://sqs.eu-west-1.amazonaws.com/1/mycli-team-launch",
            ),
            (
                "MYCLI_CONTROL_QUEUE_URL",
                "https://sqs.eu-west-1.amazonaws.com/1/mycli-team-control",
            ),
            ("MYCLI_LOG_GROUP", "/aws/mycli/team"),
            ("MYCLI_CLUSTER", "mycli-team"),
            ("MYCLI_SUBNETS", "subnet-a, subnet-b,subnet-c"),
            ("MYCLI_SECURITY_GROUPS", "sg-a"),
            ("MYCLI_ASSIGN_PUBLIC_IP", "true"),
            ("MYCLI_EXECUTION_ROLE_ARN", "arn:aws:iam::1:role/execution"),
            ("MYCLI_TASK_ROLE_ARN", "arn:aws:iam::1:role/task"),
            ("MYCLI_SECRETS_PATH", "/mycli/team/secrets/"),
            ("MYCLI_FAMILY_PREFIX", "mycli-team"),
            ("MYCLI_TAG_TASKS", "true"),
            ("MYCLI_TASK_ROLE_PREFIX", "arn:aws:iam::1:role/mycli/team/"),
            ("MYCLI_REGISTRY_SECRET_PREFIX", "mycli/team/"),
            ("MYCLI_DEFAULT_IMAGE", "alpine:3.20"),
            ("MYCLI_DEFAULT_CPU", "1024"),
            ("MYCLI_DEFAULT_MEMORY", "2048"),
            ("MYCLI_DEFAULT_ARCH", "x86_64"),
            ("MYCLI_DEFAULT_CAPACITY", "on-demand"),
            ("MYCLI_DEFAULT_TIMEOUT", "30m"),
            ("MYCLI_MAX_TIMEOUT", "2h"),
            ("MYCLI_SPOT_VCPUS", "8"),
            ("MYCLI_ON_DEMAND_VCPUS", ""),
            ("MYCLI_LAUNCHES_PER_SECOND", "20"),
            ("MYCLI_SPOT_FALLBACK_AFTER", "3"),
            ("MYCLI_EVENT_BUS", "default"),
        ])
    }

    fn read(
        function: Function,
        variables: &BTreeMap<&str, &str>,
    ) -> Result<Installation, BadEnvironment> {
        Installation::read(function, |name| {
            variables.get(name).map(|value| (*value).to_owned())
        })
    }

    #[test]
    fn a_whole_stack_is_read() {
        let stack = read(Launcher, &stack()).unwrap();
        let network = stack.settings.network.unwrap();
        assert_eq!((network.subnets.len(), network.assign_public_ip), (3, true));
        assert_eq!(
            stack.settings.quotas.of(CapacityPool::FargateSpot).cpu,
            Some(8 * 1024)
        );
        assert_eq!(
            stack.settings.quotas.of(CapacityPool::Fargate),
            Quota {
                cpu: None,
                rate: Some(LAUNCHES)
            }
        );
        let defaults = stack.settings.defaults;
        assert_eq!(
            (defaults.arch, defaults.capacity),
            (Arch::X86_64, Capacity::OnDemand)
        );
        assert_eq!(
            (
                defaults.size.cpu(),
                defaults.timeout.seconds(),
                defaults.max_timeout.seconds()
            ),
            (1024, 1800, 7200)
        );
        assert_eq!(
            defaults.image.map(|image| image.to_string()).as_deref(),
            Some("alpine:3.20")
        );
        assert_eq!(stack.registration.unwrap().region, "eu-west-1");
        assert_eq!(stack.names.retention_days, 90);
    }

    #[test]
    fn a_function_is_content_with_its_own_variables() {
        for function in [Submit, Launcher, StateTracker, Query] {
            let own: BTreeMap<_, _> = stack()
                .into_iter()
                .filter(|(name, _)| {
                    name.starts_with("AWS_") || function.variables().any(|own| own == *name)
                })
                .collect();
            assert!(
                read(function, &own).is_ok(),
                "{function:?}: {:?}",
                read(function, &own)
            );
        }
    }

    #[test]
    fn each_variable_is_missed_by_a_function_that_needs_it() {
        for (name, needed_by, may_have) in VARIABLES {
            let mut without = stack();
            without.remove(name);
            for function in needed_by {
                assert_eq!(
                    read(*function, &without).unwrap_err().0,
                    [format!("{name} is missing")]
                );
            }
            for function in may_have {
                assert!(read(*function, &without).is_ok(), "{name}");
            }
        }
    }

    #[test]
    fn every_fault_is_told_at_once_by_its_name() {
        let mut wrong = stack();
        wrong.extend([
            ("MYCLI_DEFAULT_ARCH", "mips"),
            ("MYCLI_DEFAULT_MEMORY", "1"),
            ("MYCLI_DEFAULT_TIMEOUT", "3h"),
            ("MYCLI_RETENTION_DAYS", "ever"),
            ("MYCLI_SPOT_VCPUS", "0.5"),
            ("MYCLI_ASSIGN_PUBLIC_IP", "DISABLED"),
        ]);
        wrong.remove("MYCLI_TABLE");
        let faults = read(Submit, &wrong).unwrap_err();
        let names: Vec<_> = faults
            .0
            .iter()
            .map(|fault| fault.split([' ', ':']).next().unwrap_or_default())
            .collect();
        assert_eq!(
            names,
            [
                "MYCLI_ASSIGN_PUBLIC_IP",
                "MYCLI_DEFAULT_ARCH",
                "MYCLI_DEFAULT_CPU",
                "MYCLI_DEFAULT_TIMEOUT",
                "MYCLI_RETENTION_DAYS",
                "MYCLI_SPOT_VCPUS",
                "MYCLI_TABLE",
            ]
        );
    }
}
