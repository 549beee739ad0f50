//! The account: what it may do, who else is in it, and how ECS behaves in it.

use std::{collections::BTreeMap, ops::RangeInclusive};

use chrono::TimeDelta;
use domain::Timestamp;

use super::{bucket::Shape, life::Lives};

/// The account's number in every ARN.
pub const ACCOUNT: &str = "111122223333";
/// The region in every ARN.
pub const REGION: &str = "eu-west-1";
/// CPU units of one vCPU.
pub const VCPU: u32 = 1024;

/// A kind of capacity: each has a quota and a launch rate of its own (AWS-FACTS §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Fargate on demand.
    OnDemand,
    /// Fargate Spot.
    Spot,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::OnDemand, Self::Spot];

    /// ECS's name of the capacity provider.
    #[must_use]
    pub fn provider(self) -> &'static str {
        match self {
            Self::OnDemand => "FARGATE",
            Self::Spot => "FARGATE_SPOT",
        }
    }

    /// Service Quotas' code of the vCPUs that may be in use at once (AWS General Reference, "AWS
    /// Fargate service quotas").
    #[must_use]
    pub fn quota_code(self) -> &'static str {
        match self {
            Self::OnDemand => "L-3032A538",
            Self::Spot => "L-36FBB829",
        }
    }
}

/// How fast each thing may be done, over the whole account and region.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Calls to RunTask on Fargate: 20 a second, burst and sustained (Developer Guide, "AWS Fargate
    /// throttling quotas").
    pub run_task: Shape,
    /// Tasks launched, for each kind of capacity: 100 and 20 a second (ibid.).
    pub launches: Shape,
    /// RunTask and StopTask together: 100 and 40 (API Reference, "Request throttling for the Amazon
    /// ECS API").
    pub run_and_stop: Shape,
    /// DescribeTasks and ListTasks together: 100 and 20 (ibid.).
    pub look: Shape,
    /// RegisterTaskDefinition and DeregisterTaskDefinition together: 20 and 1 (ibid.).
    pub register: Shape,
    /// DescribeTaskDefinition: 50 and 20 (ibid.).
    pub describe_definition: Shape,
}

const fn shape(burst: u32, per_second: u32) -> Shape {
    Shape { burst, per_second }
}

/// What every account has until it asks for more.
pub const DEFAULT_RATES: Rates = Rates {
    run_task: shape(20, 20),
    launches: shape(100, 20),
    run_and_stop: shape(100, 40),
    look: shape(100, 20),
    register: shape(20, 1),
    describe_definition: shape(50, 20),
};

/// The vCPUs of a kind that may be in use at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VcpuQuota {
    /// The account's own value. An account that never asked for another may have none (AWS-FACTS
    /// §2).
    pub applied: Option<u32>,
    /// AWS's default: 6 (AWS-FACTS §2).
    pub default: u32,
}

impl VcpuQuota {
    /// An account's own value.
    #[must_use]
    pub fn applied(vcpus: u32) -> Self {
        Self {
            applied: Some(vcpus),
            ..Self::default()
        }
    }

    /// What holds, in CPU units.
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

/// Tasks of somebody else in the same account: quotas belong to the account, not to us (DESIGN §5).
///
/// From its beginning on it takes whatever is free until it has what it wants; it never takes from
/// who has.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    /// Of which kind.
    pub kind: Kind,
    /// From when on it wants them.
    pub from: Timestamp,
    /// When it gives all of them back.
    pub until: Timestamp,
    /// CPU units that it wants.
    pub cpu: u32,
}

/// A time in which Fargate has no capacity of a kind to give, whatever the quota says.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// Of which kind.
    pub kind: Kind,
    /// From when on.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

/// How events come to who listens: at least once and in no order (Developer Guide, "Amazon ECS
/// events"), or worse.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// How long each takes.
    pub delay: RangeInclusive<TimeDelta>,
    /// How probable it is that one takes much longer, and how long then.
    pub late: (f64, RangeInclusive<TimeDelta>),
    /// How probable it is that one comes twice.
    pub duplicated: f64,
    /// How probable it is that one comes only after the next one of its task.
    pub reordered: f64,
    /// How probable it is that one never comes.
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
    /// How probable it is that the call is carried out and answered with the server's own fault
    /// (500).
    pub lost: f64,
    /// How probable it is that it is answered so without having been carried out.
    pub failed: f64,
}

/// An account and region with one cluster.
#[derive(Clone, Debug)]
pub struct Account {
    /// What everything that is drawn depends on.
    pub seed: u64,
    /// The cluster's name.
    pub cluster: String,
    /// vCPUs in use at once.
    pub vcpus: BTreeMap<Kind, VcpuQuota>,
    /// How fast.
    pub rates: Rates,
    /// Others in the account.
    pub foreign: Vec<Foreign>,
    /// When there is no capacity.
    pub outages: Vec<Outage>,
    /// How long after RunTask a task is neither listed nor described nor stopped: ECS is eventually
    /// consistent (API Reference, RunTask).
    pub seen_after: RangeInclusive<TimeDelta>,
    /// How events come.
    pub delivery: Delivery,
    /// How RunTask's answers fail.
    pub answers: Answers,
    /// How tasks live.
    pub lives: Lives,
}

impl Account {
    /// A new account with AWS's defaults, everything seen at once and every event delivered at
    /// once.
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

    /// The same with so many vCPUs of a kind.
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
