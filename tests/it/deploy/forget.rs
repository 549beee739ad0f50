//! `forget`: removes a record that cannot be read.

use aws::dynamo::DynamoStore;
use chrono::Utc;
use domain::{
    ecs::Task,
    execution::Execution,
    id::ExecutionId,
    key::Caller,
    limit::{CapacityPool, LimitKey},
    ports::{ReadStore, WriteStore},
    request::{Defaults, SubmitRequest},
    transition::Observation,
};
use serde_json::json;
use tests::ecs::RUNNING;
use tests::table;

use super::world::World;
use crate::contract::records::{admissions, launching};

/// A task that ECS does not know any more. Stopping it is no error.
const TASK: &str =
    "arn:aws:ecs:us-east-1:000000000000:task/mycli-default/0f9d2a7b5c8e4f16a3b1d0c9e8f7a6b5";

#[test]
fn a_record_that_cannot_be_read_is_found_by_the_doctor_and_forgotten() {
    let world = World::with_stack();
    let now = Utc::now();
    let request = SubmitRequest {
        command: Some("true".into()),
        lock: Some("deploy".into()),
        ..SubmitRequest::default()
    };
    let request = request.validate(&Defaults::aws()).unwrap();
    let execution = Execution::submitted(
        ExecutionId::new(now, 1),
        request,
        CapacityPool::FargateSpot,
        &Caller::local("alice"),
        now,
    );
    let id = execution.id.to_string();
    let store = DynamoStore::of(
        &table::configuration(world.emulator.endpoint()),
        "mycli-default",
        90,
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        store.create(&execution, None).await.unwrap();
        let wanted = admissions(&execution, None);
        let launched = store
            .update(&execution, launching(&execution, now), &wanted)
            .await
            .unwrap();
        let task = Task {
            task_arn: TASK.into(),
            last_status: RUNNING.into(),
            version: 2,
            ..Task::default()
        };
        let seen = launched.observe(1, &Observation::Task(&task), now).unwrap();
        store.update(&launched, seen, &[]).await.unwrap();
    });
    world
        .run(&["forget", &id, "--yes"])
        .exits(1)
        .says("can be read");
    let [request, _] = store.items(&execution).unwrap();
    let text = |name: &str| json!({"S": request[name].as_s().unwrap()});
    let update = json!({
        "TableName": "mycli-default", "Key": {"pk": text("pk"), "sk": text("sk")},
        "UpdateExpression": "SET #request.arch = :arch", "ExpressionAttributeNames": {"#request": "request"},
        "ExpressionAttributeValues": {":arch": {"S": "mips"}},
    });
    world.ask("dynamodb", "DynamoDB_20120810.UpdateItem", &update);

    let found = world.run(&["doctor"]).exits(1).out;
    assert!(found.contains(&format!("mycli forget {id}")), "{found}");
    let told = world
        .run(&["forget", &id[20..], "--yes", "-o", "json"])
        .exits(0)
        .json();
    assert_eq!(
        told,
        json!({"forgotten": id, "released": ["lock:deploy"], "untold": [], "task_arn": TASK})
    );
    let lock = LimitKey::Lock("deploy".parse().unwrap());
    assert_eq!(runtime.block_on(store.usage(&lock)).unwrap().used, 0);
    world
        .run(&["forget", &id, "--yes"])
        .exits(1)
        .says("there is no execution");
    world.run(&["doctor"]).exits(0);
}
