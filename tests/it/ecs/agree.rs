//! The model in this process and the model on the wire are interpreted by the same code, with the
//! same results.

use aws::quotas::ServiceQuotas;
use chrono::TimeDelta;
use domain::{
    Timestamp,
    ecs::TaskArn,
    limit::CapacityPool,
    ports::{AccountQuotas, Clock, Tasks},
};
use tests::{
    clock::Manual,
    ecs::{Counts, Ecs, Kind, Outage, RunTask, VcpuQuota},
};

use super::{account, attempt, clock, definition, in_process, input, on_the_wire};

/// A change to the model after a definition is registered.
type Situation = fn(&mut Ecs, Timestamp);

const SITUATIONS: [(&str, Situation); 7] = [
    ("all is well", |_, _| {}),
    ("the quota is nothing", |ecs, now| {
        ecs.set_quota(Kind::Spot, VcpuQuota::applied(0), now);
    }),
    ("one fits", |ecs, now| {
        ecs.set_quota(Kind::Spot, VcpuQuota::applied(1), now);
    }),
    ("Spot is out", |ecs, _| {
        ecs.add_outage(Outage {
            kind: Kind::Spot,
            from: Timestamp::default(),
            until: Timestamp::MAX_UTC,
        });
    }),
    ("an answer is lost", |ecs, _| ecs.lose_answers(1)),
    ("the definition is gone", |ecs, now| {
        let arn =
            ecs.describe_task_definition(&family(), now).unwrap()["taskDefinitionArn"].clone();
        ecs.deregister_task_definition(arn.as_str().unwrap(), now)
            .unwrap();
    }),
    ("the rate is used up", |ecs, now| {
        (0..20).for_each(|_| drop(ecs.run_task(&RunTask::default(), now)));
    }),
];

fn family() -> String {
    format!("{}-{}", super::CLUSTER, definition().content_hash())
}

/// Everything that a caller of the port sees, step by step.
async fn told(
    tasks: &impl Tasks,
    clock: &Manual,
    situation: impl FnOnce(Timestamp),
) -> Vec<String> {
    let registered = tasks.register_definition(&definition()).await;
    let arn = registered.clone().unwrap();
    let mut said = vec![format!("{registered:?}")];
    situation(clock.now());
    let mut other = input(1, &arn);
    other.overrides.memory = "3072".into();
    let mut odd = input(3, &arn);
    odd.overrides.memory = "100".into();
    for input in [
        &input(1, &arn),
        &input(1, &arn),
        &other,
        &input(2, &arn),
        &odd,
    ] {
        said.push(format!("{:?}", tasks.run_task(input).await));
    }
    for _ in 0..3 {
        clock.pass(TimeDelta::seconds(7));
        let listed = tasks.list_tasks(&attempt(1)).await.unwrap();
        said.push(format!("{listed:?}"));
        let unknown = TaskArn::from(
            "arn:aws:ecs:eu-west-1:111122223333:task/mycli-team/ffffffffffffffffffffffffffffffff",
        );
        let asked: Vec<_> = listed.iter().cloned().chain([unknown]).collect();
        said.push(format!("{:?}", tasks.describe_tasks(&asked).await));
        said.push(format!("{:?}", tasks.stop_task(&asked[0], "enough").await));
    }
    said.push(format!("{:?}", tasks.describe_tasks(&[]).await));
    let imageless = domain::task::TaskDefinition {
        image: None,
        ..definition()
    };
    said.push(format!("{:?}", tasks.register_definition(&imageless).await));
    said
}

#[tokio::test]
async fn both_ways_to_the_model_say_the_same() {
    for (name, situation) in SITUATIONS {
        let (wire_clock, own_clock) = (clock(), clock());
        let (wire, _events, over_the_wire) = on_the_wire(account(), &wire_clock).await;
        let (ecs, direct) = in_process(account(), &own_clock);
        let by_wire = told(&over_the_wire, &wire_clock, |now| {
            wire.with(|ecs| situation(ecs, now));
        })
        .await;
        let by_port = told(&direct, &own_clock, |now| {
            situation(&mut ecs.lock().unwrap(), now);
        })
        .await;
        assert_eq!(by_wire, by_port, "{name}");
        // Only the wire takes events.
        let counted = |ecs: &Ecs| Counts {
            delivered: 0,
            ..ecs.counts().clone()
        };
        assert_eq!(
            wire.with(|ecs| counted(ecs)),
            counted(&ecs.lock().unwrap()),
            "{name}"
        );
    }
}

#[tokio::test]
async fn both_ways_name_the_same_quotas() {
    let clock = clock();
    let (wire, _events, _) = on_the_wire(account(), &clock).await;
    let (_, direct) = in_process(account(), &clock);
    let quotas = ServiceQuotas::new(&wire.config());
    for pool in [
        CapacityPool::FargateSpot,
        CapacityPool::Fargate,
        CapacityPool::Machine,
    ] {
        let by_wire = quotas
            .vcpus(pool)
            .await
            .unwrap()
            .map(|quota| quota.vcpus * 1024.0);
        assert_eq!(
            direct.cpu(pool).await.unwrap().map(f64::from),
            by_wire,
            "{pool:?}"
        );
    }
}
