//! Where a secret's value is, and where it is not.

use std::fs;

use serde_json::{Value, json};

use super::world::World;

const VALUE: &str = "planted-value-7c1f";

/// All that DynamoDB, ECS, SQS and the logs keep, as text.
fn everything(world: &World) -> String {
    let ecs = |operation: &str, body: Value| {
        world.ask("ecs", &format!("AmazonEC2ContainerServiceV20141113.{operation}"), &body)
    };
    let mut texts =
        vec![world.ask("dynamodb", "DynamoDB_20120810.Scan", &json!({"TableName": "mycli-default"})).to_string()];
    let tasks = ecs("ListTasks", json!({"cluster": "mycli-default", "desiredStatus": "STOPPED"}))["taskArns"].clone();
    texts.push(ecs("DescribeTasks", json!({"cluster": "mycli-default", "tasks": tasks})).to_string());
    for arn in ecs("ListTaskDefinitions", json!({}))["taskDefinitionArns"].as_array().into_iter().flatten() {
        texts.push(ecs("DescribeTaskDefinition", json!({"taskDefinition": arn})).to_string());
    }
    let groups = world.ask("logs", "Logs_20140328.DescribeLogGroups", &json!({}));
    for group in groups["logGroups"].as_array().into_iter().flatten() {
        let all = json!({"logGroupName": group["logGroupName"]});
        texts.push(world.ask("logs", "Logs_20140328.FilterLogEvents", &all).to_string());
    }
    texts.push(fs::read_to_string(world.emulator.request_log()).unwrap_or_default());
    texts.push(fs::read_to_string(world.emulator.server_log()).unwrap_or_default());
    texts.concat()
}

#[test]
fn a_secret_reaches_the_command_that_names_it_and_is_found_nowhere_else() {
    let world = World::new();
    let command = "test \"$API_PASSWORD\" = planted-value-\"7c1f\" && echo right";
    world
        .run(&["exec", "--no-repo", "--secret", "API_PASSWORD", command])
        .exits(125)
        .says("mycli secrets set API_PASSWORD");
    let mut printed = world.run_with(&["-v", "secrets", "set", "API_PASSWORD"], VALUE).exits(0);
    let ran = world.run(&["-v", "exec", "--no-repo", "--secret", "API_PASSWORD", command]).exits(0).prints("right\n");
    printed.err.push_str(&ran.err);
    printed.err.push_str(&world.run(&["status", "-o", "json"]).exits(0).out);
    printed.err.push_str(&world.run(&["secrets", "list", "-o", "json"]).exits(0).out);
    let kept = everything(&world);
    assert!(kept.contains("API_PASSWORD") && kept.contains("right"), "what was searched is not all: {kept}");
    let key = world.api().1;
    for planted in [VALUE, &key] {
        assert!(!kept.contains(planted), "the value is kept: {}", around(&kept, planted));
        assert!(!printed.err.contains(planted) && !printed.out.contains(planted), "it was printed: {printed:#?}");
    }
}

#[test]
fn a_secret_for_administrators_cannot_be_named_by_another_key() {
    let world = World::new();
    world.run_with(&["secrets", "set", "PROD_TOKEN", "--role", "admin"], VALUE).exits(0);
    let weaker = world.run(&["keys", "create", "ci", "--role", "submit"]).exits(0).out.trim().to_owned();
    let request = json!({"action": "exec", "command": "true", "secrets": ["PROD_TOKEN"]}).to_string();
    let (status, text) = world.call("POST", "/execute", &weaker, Some(request.clone()));
    assert!(status == 422 && text.contains("secrets[0]") && text.contains("admin"), "{status} {text}");
    let (status, text) = world.call("POST", "/execute", &world.api().1, Some(request));
    assert_eq!(status, 202, "{text}");
}

fn around<'a>(text: &'a str, planted: &str) -> &'a str {
    let at = text.find(planted).unwrap_or_default();
    text.get(at.saturating_sub(200)..(at + 100).min(text.len())).unwrap_or(text)
}
