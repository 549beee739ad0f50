//! The functions' environment variables, and the sources that call them.

use std::collections::BTreeSet;

use aws::settings::{Function, Installation};
use domain::price::PriceList;
use serde_json::Value;
use tests::template::{Stack, Template};

const FUNCTIONS: [(&str, Function); 4] = [
    ("SubmitFunction", Function::Submit),
    ("QueryFunction", Function::Query),
    ("LauncherFunction", Function::Launcher),
    ("StateTrackerFunction", Function::StateTracker),
];

fn environment(function: &str, stack: &Stack) -> Value {
    Template::read().properties(function, stack)["Environment"]["Variables"].clone()
}

#[test]
fn each_function_is_given_what_it_reads_and_nothing_else() {
    for (name, function) in FUNCTIONS {
        let environment = environment(name, &Stack::named("default"));
        let given: BTreeSet<_> = environment
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let read: BTreeSet<_> = function.variables().collect();
        assert_eq!(given, read, "{name}");
    }
}

/// The stacks have a network of their own or a given one, and parameters with and without default
/// values.
#[test]
fn each_function_understands_what_it_is_given() {
    let stacks = [
        Stack::named("default"),
        Stack::named("a")
            .with("SubnetIds", "subnet-1,subnet-2")
            .with("SecurityGroupIds", "sg-1,sg-2")
            .with("AssignPublicIp", "false"),
        Stack::named("b")
            .with("SpotVcpus", "12")
            .with("OnDemandVcpus", "0")
            .with("DefaultCapacity", "on-demand"),
    ];
    for stack in &stacks {
        for (name, function) in FUNCTIONS {
            let mut variables = environment(name, stack);
            variables["AWS_REGION"] = "eu-central-1".into(); // Lambda sets this one.
            // A variable's value is text, even if the template has a number.
            let text = |value: &Value| {
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            };
            let read = Installation::read(function, |variable| variables.get(variable).map(text));
            assert!(read.is_ok(), "{name}: {}", read.unwrap_err());
        }
    }
}

/// The prices that the template's description and the manual show as an example, and those of the
/// region.
#[test]
fn prices_are_those_of_the_region_unless_the_stack_was_given_some() {
    let example = Template::read().0["Parameters"]["Prices"]["Description"]
        .as_str()
        .and_then(|words| words.split_whitespace().find(|word| word.contains("ipv4=")))
        .map(|word| word.trim_end_matches('.').to_owned())
        .expect("an example");
    let manual = include_str!("../../../docs/cost.md");
    assert!(manual.contains(&format!("Prices={example}\n")), "{example}");
    let prices = |region: &str, given: &str| {
        let stack = Stack::named("default").with("Prices", given);
        let mut variables = environment("LauncherFunction", &stack);
        variables["AWS_REGION"] = region.into();
        let text = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        Installation::read(Function::Launcher, |name| variables.get(name).map(text))
            .expect("the launcher starts")
            .settings
            .prices
    };
    let built_in = prices("us-east-1", "").expect("they are built in");
    assert_eq!(prices("eu-central-1", ""), None);
    let given = prices("eu-central-1", &example).expect("they are given");
    assert_eq!(built_in.basis, "us-east-1 2026-11");
    let unnamed = PriceList {
        basis: given.basis.clone(),
        ..built_in
    };
    assert_eq!(given, unnamed, "the example has the built-in prices");
}

#[test]
fn a_given_network_is_used_as_it_is_and_nothing_is_made() {
    let stack = Stack::named("default")
        .with("SubnetIds", "subnet-1,subnet-2")
        .with("SecurityGroupIds", "sg-1");
    let launcher = environment("LauncherFunction", &stack);
    assert_eq!(
        (
            &launcher["MYCLI_SUBNETS"],
            &launcher["MYCLI_SECURITY_GROUPS"]
        ),
        (&"subnet-1,subnet-2".into(), &"sg-1".into())
    );
    let template = Template::read();
    for kind in [
        "VPC",
        "Subnet",
        "InternetGateway",
        "VPCGatewayAttachment",
        "RouteTable",
        "Route",
        "EIP",
        "NatGateway",
        "SubnetRouteTableAssociation",
        "SecurityGroup",
    ] {
        for (name, resource) in template.of_type(&format!("AWS::EC2::{kind}")) {
            let condition = resource["Condition"]
                .as_str()
                .unwrap_or_else(|| panic!("{name} is always made"));
            assert!(!template.condition(condition, &stack), "{name}");
            let made = Stack::named("default")
                .with("ZoneC", "us-east-1c")
                .with("PrivateSubnets", "true");
            assert!(template.condition(condition, &made), "{name}");
            // A NAT gateway is billed by the hour, so a stack has one only if the user asks for it.
            let is_of_nat = name.contains("Nat");
            let usual = Stack::named("default").with("ZoneC", "us-east-1c");
            assert_eq!(template.condition(condition, &usual), !is_of_nat, "{name}");
        }
    }
}

#[test]
fn only_an_emulator_s_functions_are_told_where_aws_is() {
    for (name, _) in FUNCTIONS {
        assert_eq!(
            environment(name, &Stack::named("default")).get("AWS_ENDPOINT_URL"),
            None,
            "{name}"
        );
        let emulator = Stack::named("default").with("EndpointUrl", "http://127.0.0.1:4566");
        assert_eq!(
            environment(name, &emulator)["AWS_ENDPOINT_URL"],
            "http://127.0.0.1:4566",
            "{name}"
        );
    }
}

/// SQS hides a message while a function works on it. If the function is cut off, the message must
/// not become visible to another one before that.
#[test]
fn messages_stay_hidden_for_six_times_the_functions_time() {
    let template = Template::read();
    let time = template.resource("LauncherFunction")["Properties"]["Timeout"]
        .as_u64()
        .unwrap();
    for queue in ["LaunchQueue", "ControlQueue"] {
        let properties = &template.resource(queue)["Properties"];
        assert_eq!(properties["VisibilityTimeout"], 6 * time, "{queue}");
        assert_eq!(properties["RedrivePolicy"]["maxReceiveCount"], 5, "{queue}");
    }
}

/// The store may forget names of launches only once no launcher can still use them.
#[test]
fn a_launcher_ends_before_its_launch_batches_count_as_departed() {
    let function = Template::read().resource("LauncherFunction").clone();
    let time = &function["Properties"]["Timeout"];
    assert_eq!(time.as_i64(), Some(aws::dynamo::LAUNCHER_TIMEOUT));
}

/// API Gateway waits for 29 seconds (AWS-FACTS §7). A function that took longer would be cut off
/// without an explanation.
#[test]
fn what_answers_over_http_answers_within_api_gateways_time() {
    for function in ["SubmitFunction", "QueryFunction"] {
        assert!(
            Template::read().resource(function)["Properties"]["Timeout"]
                .as_u64()
                .unwrap()
                <= 29,
            "{function}"
        );
    }
}

#[test]
fn each_source_may_call_the_function_it_calls() {
    let template = Template::read();
    let stack = Stack::named("default");
    let permissions: Vec<_> = template
        .of_type("AWS::Lambda::Permission")
        .map(|(name, _)| template.properties(name, &stack))
        .collect();
    let allowed = |source: &str, function: &str| {
        let source = template
            .resolved(&serde_json::json!({"Fn::GetAtt": source}), &stack)
            .unwrap();
        permissions.iter().any(|permission| {
            permission["SourceArn"] == source && permission["FunctionName"] == function
        })
    };
    for source in ["TaskRule.Arn", "SweepRule.Arn", "TaskLogGroup.Arn"] {
        assert!(allowed(source, "mycli-default-state-tracker"), "{source}");
    }
}
