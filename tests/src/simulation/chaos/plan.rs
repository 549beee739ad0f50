//! The plan of a seed: the account, the users and their errands, and the faults.

use std::ops::RangeInclusive;

use chrono::TimeDelta;
use domain::request::SubmitRequest;

use crate::{
    ecs::{
        Account, Delivery, End, Foreign, IMAGE_MISSING, Kind, Lives, OnTerm, Outage,
        PULL_TIMED_OUT, SECRET_THROTTLED, VCPU,
    },
    random::Random,
    simulation::start,
};

/// How long faults happen. After that there are none, and everything has to finish.
const WEATHER: TimeDelta = TimeDelta::minutes(12);
/// When the last users arrive.
const LAST_COMER: TimeDelta = TimeDelta::minutes(6);

/// The faults. Each is a probability per occasion, unless its field says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// A call of the store, a queue, ECS or the logs has no answer. Half of these calls are carried
    /// out, half are not.
    pub no_answer: f64,
    /// RunTask is throttled because somebody in the account calls it too often. ECS says so before
    /// it looks at the request.
    pub throttled: f64,
    /// A call takes seconds.
    pub slow: f64,
    /// A conditional write conflicts with another one in progress.
    pub conflict: f64,
    /// An invocation's process dies at one of its first awaits.
    pub crash: f64,
    /// A message is lost before it arrives.
    pub wakeup_lost: f64,
    /// A message is received by two processes at once.
    pub wakeup_doubled: f64,
    /// The logs' subscription does not deliver marker lines to the state tracker.
    pub line_lost: f64,
    /// The subscription delivers them twice.
    pub line_doubled: f64,
    /// How far a process's clock is off at most, in either direction.
    pub skew: TimeDelta,
}

/// The actions of one user.
#[derive(Clone, Debug)]
pub struct Errand {
    /// When the user submits, from the beginning.
    pub at: TimeDelta,
    /// The name of the key.
    pub by: String,
    /// What the user submits: a single request, or the lines of one submission.
    pub requests: Vec<SubmitRequest>,
    /// Whether the requests are sent as a submission, even a single one.
    pub is_bulk: bool,
    /// The requests to cancel, and how long after the submission.
    pub cancels: Vec<(usize, TimeDelta)>,
    /// The group to cancel, and how long after the submission.
    pub cancels_group: Option<(String, TimeDelta)>,
    /// Whether the first execution is submitted again once it has ended.
    pub reruns: bool,
    /// The group to rerun the failed members of, and how long after the submission.
    pub reruns_group: Option<(String, TimeDelta)>,
}

/// One simulation.
#[derive(Clone, Debug)]
pub struct LaunchPlan {
    /// The seed for everything random.
    pub seed: u64,
    /// The account.
    pub account: Account,
    /// After how many refusals or interruptions Spot falls back to on-demand.
    pub spot_fallback_after: Option<u32>,
    /// How many starts without a pause make a launcher watch a backlog. The default of ten would
    /// hardly ever occur here.
    pub fast: usize,
    /// The users.
    pub errands: Vec<Errand>,
    /// The faults until [`LaunchPlan::clear_after`].
    pub weather: Weather,
    /// How long faults happen.
    pub clear_after: TimeDelta,
    /// New quotas and when they take effect. They are in vCPUs, as AWS's are; CPU units would be
    /// finer.
    pub quotas: Vec<(TimeDelta, Kind, u32)>,
    /// The one await, counted over all processes, at which a process dies, independently of the
    /// weather.
    pub crash_at: Option<u64>,
}

fn seconds(range: RangeInclusive<i64>) -> RangeInclusive<TimeDelta> {
    TimeDelta::seconds(*range.start())..=TimeDelta::seconds(*range.end())
}

fn millis(range: RangeInclusive<i64>) -> RangeInclusive<TimeDelta> {
    TimeDelta::milliseconds(*range.start())..=TimeDelta::milliseconds(*range.end())
}

impl LaunchPlan {
    /// Two runs with one lock, the second of which is cancelled, and a submission of two. No
    /// faults.
    #[must_use]
    pub fn small() -> Self {
        let request = |name: &str| SubmitRequest {
            command: Some("true".into()),
            name: Some(name.into()),
            timeout: Some("2m".to_owned().into()),
            ..SubmitRequest::default()
        };
        let keyed = |request: SubmitRequest| SubmitRequest {
            idempotency_key: request.name.clone(),
            ..request
        };
        let locked = |name: &str| SubmitRequest {
            lock: Some("deploy".into()),
            ..request(name)
        };
        let one = |at: i64, request: SubmitRequest, cancels: Vec<(usize, TimeDelta)>| Errand {
            at: TimeDelta::seconds(at),
            by: "alice".into(),
            requests: vec![request],
            is_bulk: false,
            cancels,
            cancels_group: None,
            reruns: false,
            reruns_group: None,
        };
        let mut account = Account::new(1, "chaos")
            .with_vcpus(Kind::Spot, 1)
            .with_vcpus(Kind::OnDemand, 1);
        account.lives.start_up = seconds(5..=8);
        account.lives.work = seconds(4..=9);
        account.lives.wind_down = seconds(1..=2);
        account.seen_after = millis(0..=500);
        account.delivery.delay = millis(100..=600);
        let mut pair = one(4, request("third"), vec![]);
        pair.requests.push(request("fourth"));
        pair.is_bulk = true;
        Self {
            seed: 1,
            account,
            spot_fallback_after: None,
            fast: 1,
            errands: vec![
                one(1, keyed(locked("first")), vec![]),
                one(
                    2,
                    keyed(locked("second")),
                    vec![(0, TimeDelta::seconds(28))],
                ),
                pair,
            ],
            weather: Weather::default(),
            clear_after: TimeDelta::zero(),
            quotas: Vec::new(),
            crash_at: None,
        }
    }

    /// Ten thousand runs of one group, sent in twenty requests. A few run when somebody cancels the
    /// group. The faults are those of this seed.
    #[must_use]
    pub fn ten_thousand_cancelled(seed: u64) -> Self {
        const LINES: usize = 500;
        let drawn = Self::drawn(seed);
        let request = SubmitRequest {
            command: Some("make".into()),
            timeout: Some("10m".to_owned().into()),
            group: Some("nightly".into()),
            ..SubmitRequest::default()
        };
        let errand = |number: i64| Errand {
            at: TimeDelta::milliseconds(100 * number),
            by: "alice".into(),
            requests: vec![request.clone(); LINES],
            is_bulk: true,
            cancels: Vec::new(),
            cancels_group: (number == 0).then(|| ("nightly".to_owned(), TimeDelta::seconds(40))),
            reruns: false,
            reruns_group: None,
        };
        Self {
            errands: (0..20).map(errand).collect(),
            ..drawn
        }
    }

    /// A thousand runs of one group, every other of which fails, and one request that reruns the
    /// failed ones. The faults are those of this seed.
    #[must_use]
    pub fn a_thousand_rerun(seed: u64) -> Self {
        let mut plan = Self::ten_thousand_cancelled(seed);
        plan.errands.truncate(2);
        plan.errands[0].cancels_group = None;
        plan.errands[0].reruns_group = Some(("nightly".to_owned(), TimeDelta::minutes(20)));
        plan.account.lives.ends = vec![(0.5, End::Exit(1))];
        plan.account = plan.account.with_vcpus(Kind::Spot, 100);
        plan.quotas.clear();
        plan
    }

    /// The plan of this seed.
    #[must_use]
    pub fn drawn(seed: u64) -> Self {
        let mut random = Random::keyed(seed, "plan", 0);
        let draw = &mut random;
        Self {
            seed,
            account: account(seed, draw),
            spot_fallback_after: draw.one_of(&[None, Some(1), Some(3)]),
            errands: with_groups(
                (0..3 + draw.below(7))
                    .map(|number| errand(number, draw))
                    .collect(),
                seed,
            ),
            weather: weather(draw),
            clear_after: WEATHER,
            quotas: quotas(draw),
            fast: draw.one_of(&[1, 2, 10]),
            crash_at: None,
        }
    }
}

fn weather(draw: &mut Random) -> Weather {
    Weather {
        no_answer: draw.one_of(&[0.0, 0.005, 0.03]),
        throttled: draw.one_of(&[0.0, 0.05, 0.4]),
        slow: draw.one_of(&[0.0, 0.01, 0.05]),
        conflict: draw.one_of(&[0.0, 0.02]),
        crash: draw.one_of(&[0.0, 0.02, 0.15]),
        wakeup_lost: draw.one_of(&[0.0, 0.0, 0.1, 1.0]),
        wakeup_doubled: draw.one_of(&[0.0, 0.1, 0.5]),
        line_lost: draw.one_of(&[0.0, 0.1, 1.0]),
        line_doubled: draw.one_of(&[0.0, 0.2]),
        skew: draw.one_of(&[
            TimeDelta::zero(),
            TimeDelta::milliseconds(300),
            TimeDelta::seconds(3),
        ]),
    }
}

fn account(seed: u64, draw: &mut Random) -> Account {
    let mut account = Account::new(seed, "chaos");
    for kind in Kind::ALL {
        let vcpus = draw.one_of(&[1, 1, 2, 4]);
        account = account.with_vcpus(kind, vcpus);
    }
    account.seen_after = draw.one_of(&[millis(0..=0), millis(0..=3_000)]);
    account.delivery = Delivery {
        delay: millis(50..=2_000),
        late: (draw.one_of(&[0.0, 0.1]), seconds(5..=240)),
        duplicated: draw.one_of(&[0.0, 0.2]),
        reordered: draw.one_of(&[0.0, 0.2]),
        dropped: draw.one_of(&[0.0, 0.1, 1.0]),
    };
    account.answers.lost = draw.one_of(&[0.0, 0.05, 0.3]);
    account.answers.failed = draw.one_of(&[0.0, 0.05]);
    account.lives = Lives {
        start_up: seconds(2..=40),
        work: seconds(1..=100),
        wind_down: seconds(0..=4),
        ends: ends(draw.one_of(&[0.0, 0.5, 1.0])),
        on_term: draw.one_of(&[
            OnTerm::Exits(TimeDelta::zero(), 143),
            OnTerm::Exits(TimeDelta::seconds(3), 0),
            OnTerm::Ignores,
        ]),
        given: std::collections::BTreeMap::default(),
    };
    let at = |draw: &mut Random| {
        start() + TimeDelta::seconds(i64::try_from(draw.below(400)).unwrap_or_default())
    };
    for _ in 0..draw.below(3) {
        let (kind, from) = (draw.one_of(&Kind::ALL), at(draw));
        let until =
            from + TimeDelta::seconds(20 + i64::try_from(draw.below(300)).unwrap_or_default());
        account.foreign.push(Foreign {
            kind,
            from,
            until,
            cpu: draw.one_of(&[VCPU / 2, VCPU, 4 * VCPU]),
        });
    }
    for _ in 0..draw.below(2) {
        let (kind, from) = (draw.one_of(&Kind::ALL), at(draw));
        let until =
            from + TimeDelta::seconds(20 + i64::try_from(draw.below(200)).unwrap_or_default());
        account.outages.push(Outage { kind, from, until });
    }
    account
}

/// The ends other than exit 0, with their probabilities multiplied by `share`.
fn ends(share: f64) -> Vec<(f64, End)> {
    let never = |reason: &str| End::NeverStarts(reason.to_owned());
    [
        (0.1, End::Exit(1)),
        (0.05, End::Exit(124)),
        (0.05, End::Exit(125)),
        (0.03, End::NoExitCode),
        (0.05, End::OutOfMemory),
        (0.1, End::Interrupted),
        (0.06, End::HostFails),
        (0.06, never(PULL_TIMED_OUT)),
        (0.03, never(IMAGE_MISSING)),
        (0.05, never(SECRET_THROTTLED)),
    ]
    .map(|(probability, end)| (probability * share, end))
    .into()
}

fn errand(number: u64, draw: &mut Random) -> Errand {
    let is_bulk = draw.chance(0.25);
    let count = if is_bulk { 1 + draw.below(8) } else { 1 };
    let moment = |draw: &mut Random, most: TimeDelta| {
        TimeDelta::milliseconds(
            i64::try_from(draw.below(most.num_milliseconds().unsigned_abs())).unwrap_or_default(),
        )
    };
    let requests: Vec<_> = (0..count)
        .map(|line| request(&format!("{number}-{line}"), is_bulk, draw))
        .collect();
    let mut cancels = Vec::new();
    for line in 0..requests.len() {
        if draw.chance(0.15) {
            cancels.push((line, moment(draw, TimeDelta::minutes(3))));
        }
    }
    Errand {
        at: moment(draw, LAST_COMER),
        by: draw.one_of(&["alice", "bob", "carol"]).to_owned(),
        requests,
        is_bulk,
        cancels,
        cancels_group: None,
        reruns: draw.chance(0.1),
        reruns_group: None,
    }
}

/// Makes some users cancel a whole group, or rerun its failed members. Each decision has its own
/// stream of random numbers, so that the rest of a seed's plan did not change when groups were
/// added.
fn with_groups(mut errands: Vec<Errand>, seed: u64) -> Vec<Errand> {
    fn group(draw: &mut Random, within: u64) -> (String, TimeDelta) {
        let after = i64::try_from(draw.below(within)).unwrap_or_default();
        (
            draw.one_of(&["nightly", "matrix"]).to_owned(),
            TimeDelta::milliseconds(after),
        )
    }
    let [cancels, reruns] =
        &mut ["groups", "group reruns"].map(|stream| Random::keyed(seed, stream, 0));
    for errand in &mut errands {
        errand.cancels_group = cancels.chance(0.15).then(|| group(cancels, 120_000));
        errand.reruns_group = reruns.chance(0.15).then(|| group(reruns, 600_000));
    }
    errands
}

fn request(name: &str, in_bulk: bool, draw: &mut Random) -> SubmitRequest {
    let group = draw
        .chance(0.3)
        .then(|| draw.one_of(&["nightly", "matrix"]).to_owned());
    let on = draw.one_of(&[
        vec![],
        vec![],
        vec!["spot".to_owned()],
        vec!["spot".to_owned(), "host".to_owned()],
    ]);
    SubmitRequest {
        command: Some("make".into()),
        name: Some(format!("run-{name}")),
        timeout: Some(draw.one_of(&["30s", "10m"]).to_owned().into()),
        cpu: Some(
            draw.one_of(&["256", "256", "512", "1024"])
                .to_owned()
                .into(),
        ),
        memory: Some("2048".to_owned().into()),
        capacity: draw.one_of(&[None, None, Some("on-demand".to_owned())]),
        lock: draw
            .chance(0.25)
            .then(|| draw.one_of(&["deploy", "state"]).to_owned()),
        max_parallel: group
            .as_ref()
            .and_then(|_| draw.chance(0.8).then(|| draw.one_of(&[1, 2]))),
        group,
        priority: draw.one_of(&[None, None, Some(5)]),
        retries: if on.is_empty() {
            draw.one_of(&[None, None, Some(2)])
        } else {
            draw.one_of(&[None, Some(2)])
        },
        retry_on: on,
        idempotency_key: (!in_bulk).then(|| format!("key-{name}")),
        ..SubmitRequest::default()
    }
}

fn quotas(draw: &mut Random) -> Vec<(TimeDelta, Kind, u32)> {
    let change = |draw: &mut Random| {
        let at = TimeDelta::seconds(i64::try_from(draw.below(500)).unwrap_or_default());
        (at, draw.one_of(&Kind::ALL), draw.one_of(&[1, 2, 4]))
    };
    (0..draw.below(3)).map(|_| change(draw)).collect()
}
