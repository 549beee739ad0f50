//! The account: its quotas, its other tenants, and how ECS behaves in it.

use std::{collections::BTreeMap, ops::RangeInclusive};

use chrono::TimeDelta;
use domain::Timestamp;

use super::{bucket::Shape, life::Lives};

/// The account number in every ARN.
pub const ACCOUNT: &str = "111122223333";
/// The region in every ARN.
pub const REGION: &str = "eu-west-1";
/// CPU units of one vCPU.
pub const VCPU: u32 = 1024;

/// A kind of capacity. Each kind has its own quota and launch rate (AWS-FACTS §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Fargate on demand.
    OnDemand,
    /// Fargate Spot.
    Spot,
}

impl Kind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::OnDemand, Self::Spot];

    /// ECS's name for the capacity provider.
    #[must_use]
    pub fn provider(self) -> &'static str {
        match self {
            Self::OnDemand => "FARGATE",
            Self::Spot => "FARGATE_SPOT",
        }
    }

    /// Service Quotas' code for the quota of concurrent vCPUs (AWS General Reference, "AWS Fargate
    /// service quotas").
    #[must_use]
    pub fn quota_code(self) -> &'static str {
        match self {
            Self::OnDemand => "L-3032A538",
            Self::Spot => "L-36FBB829",
        }
    }
}

/// The rate limits, over the whole account and region.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// RunTask calls on Fargate: 20 a second, burst and sustained (Developer Guide, "AWS Fargate
    /// throttling quotas").
    pub run_task: Shape,
    /// Tasks launched, for each kind of capacity: burst 100, then 20 a second (ibid.).
    pub launches: Shape,
    /// RunTask and StopTask together: burst 100, then 40 a second (API Reference, "Request
    /// throttling for the Amazon ECS API").
    pub run_and_stop: Shape,
    /// DescribeTasks and ListTasks together: burst 100, then 20 a second (ibid.).
    pub look: Shape,
    /// RegisterTaskDefinition and DeregisterTaskDefinition together: burst 20, then 1 a second
    /// (ibid.).
    pub register: Shape,
    /// DescribeTaskDefinition: burst 50, then 20 a second (ibid.).
    pub describe_definition: Shape,
}

const fn shape(burst: u32, per_second: u32) -> Shape {
    Shape { burst, per_second }
}

/// The rates of an account that never asked for more.
pub const DEFAULT_RATES: Rates = Rates {
    run_task: shape(20, 20),
    launches: shape(100, 20),
    run_and_stop: shape(100, 40),
    look: shape(100, 20),
    register: shape(20, 1),
    describe_definition: shape(50, 20),
};

/// The quota of concurrent vCPUs of one kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VcpuQuota {
    /// The account's own value. An account that never asked for another value may have none
    /// (AWS-FACTS §2).
    pub applied: Option<u32>,
    /// AWS's default: 6 (AWS-FACTS §2).
    pub default: u32,
}

impl VcpuQuota {
    /// A quota with the account's own value.
    #[must_use]
    pub fn applied(vcpus: u32) -> Self {
        Self {
            applied: Some(vcpus),
            ..Self::default()
        }
    }

    /// The quota that holds, in CPU units.
    #[must_use]
    pub fn cpu(self) -> u32 {
        self.applied.unwrap_or(self.default).saturating_mul(VCPU)
    }
}

impl Default for VcpuQuota {
    fn default() -> Self {
        Self {
            applied: None,
            default: 6,
        }
    }
}

/// Another tenant's tasks in the same account. Quotas belong to the account, not to one stack
/// (DESIGN §5).
///
/// From its beginning on, the tenant takes whatever is free until it has what it wants. It never
/// takes capacity that is in use.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    /// The kind of capacity.
    pub kind: Kind,
    /// When the tenant begins to take capacity.
    pub from: Timestamp,
    /// When it gives all of it back.
    pub until: Timestamp,
    /// The CPU units it wants.
    pub cpu: u32,
}

/// A period in which Fargate has no capacity of a kind, whatever the quota says.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// The kind of capacity.
    pub kind: Kind,
    /// When it begins.
    pub from: Timestamp,
    /// When it ends.
    pub until: Timestamp,
}

/// How events reach the listener: at least once and in no order (Developer Guide, "Amazon ECS
/// events"), or worse.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// How long each event takes.
    pub delay: RangeInclusive<TimeDelta>,
    /// The probability that an event takes much longer, and how long it takes then.
    pub late: (f64, RangeInclusive<TimeDelta>),
    /// The probability that an event arrives twice.
    pub duplicated: f64,
    /// The probability that an event arrives only after the next one of its task.
    pub reordered: f64,
    /// The probability that an event never arrives.
    pub dropped: f64,
}

impl Default for Delivery {
    /// At once, in order, exactly once.
    fn default() -> Self {
        let none = TimeDelta::zero()..=TimeDelta::zero();
        Self {
            delay: none.clone(),
            late: (0.0, none),
            duplicated: 0.0,
            reordered: 0.0,
            dropped: 0.0,
        }
    }
}

/// How RunTask's own answers fail.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answers {
    /// The probability that a call is carried out but answered with a server fault (500).
    pub lost: f64,
    /// The probability that a call is answered with a 500 and not carried out.
    pub failed: f64,
}

/// An account and region with one cluster.
#[derive(Clone, Debug)]
pub struct Account {
    /// The seed for everything random.
    pub seed: u64,
    /// The cluster's name.
    pub cluster: String,
    /// The quota of concurrent vCPUs of each kind.
    pub vcpus: BTreeMap<Kind, VcpuQuota>,
    /// The rate limits.
    pub rates: Rates,
    /// The other tenants in the account.
    pub foreign: Vec<Foreign>,
    /// The periods without capacity.
    pub outages: Vec<Outage>,
    /// How long after RunTask a task can be neither listed, described nor stopped: ECS is
    /// eventually consistent (API Reference, RunTask).
    pub seen_after: RangeInclusive<TimeDelta>,
    /// How events are delivered.
    pub delivery: Delivery,
    /// How RunTask's answers fail.
    pub answers: Answers,
    /// How tasks live.
    pub lives: Lives,
}

impl Account {
    /// A new account with AWS's defaults. Every task is visible at once and every event is
    /// delivered at once.
    #[must_use]
    pub fn new(seed: u64, cluster: &str) -> Self {
        Self {
            seed,
            cluster: cluster.to_owned(),
            vcpus: Kind::ALL.map(|kind| (kind, VcpuQuota::default())).into(),
            rates: DEFAULT_RATES,
            foreign: Vec::new(),
            outages: Vec::new(),
            seen_after: TimeDelta::zero()..=TimeDelta::zero(),
            delivery: Delivery::default(),
            answers: Answers::default(),
            lives: Lives::default(),
        }
    }

    /// The same account with this many vCPUs of a kind.
    #[must_use]
    pub fn with_vcpus(mut self, kind: Kind, vcpus: u32) -> Self {
        self.vcpus.insert(kind, VcpuQuota::applied(vcpus));
        self
    }

    pub(super) fn cap(&self, kind: Kind) -> u32 {
        self.vcpus.get(&kind).copied().unwrap_or_default().cpu()
    }

    pub(super) fn is_out(&self, kind: Kind, now: Timestamp) -> bool {
        self.outages
            .iter()
            .any(|outage| outage.kind == kind && (outage.from..outage.until).contains(&now))
    }

    pub(super) fn arn(&self, what: &str) -> String {
        format!("arn:aws:ecs:{REGION}:{ACCOUNT}:{what}")
    }
}
