//! The availability zones of a stack's network.
//!
//! CloudFormation's `Fn::GetAZs` lists only zones that have a default subnet, and ignores whether
//! Fargate is available. So its third zone may not exist, or may take no tasks. That is why EC2 is
//! asked instead.

use aws_sdk_ec2::{
    Client,
    types::{AvailabilityZone, AvailabilityZoneState, Filter},
};

use crate::{Account, CallError, StackName, stack::Stacks};

/// The parameters for the zones, in order. The third may be empty.
pub(crate) const PARAMETERS: [&str; 3] = ["ZoneA", "ZoneB", "ZoneC"];
/// The template's subnets in these zones, in the same order.
const SUBNETS: [&str; 3] = ["SubnetA", "SubnetB", "SubnetC"];
/// The regions in which Fargate runs Linux containers in some zones only, with the ids of these
/// zones (Amazon ECS Developer Guide, "Supported Regions for Amazon ECS on AWS Fargate").
const LIMITED: [(&str, &[&str]); 3] = [
    ("us-west-1", &["usw1-az1", "usw1-az3"]),
    ("ap-northeast-1", &["apne1-az1", "apne1-az2", "apne1-az4"]),
    ("cn-north-1", &["cnn1-az1", "cnn1-az2"]),
];

/// Chooses the zones for a new network: two or three of the region that this account may use and
/// that have Fargate.
///
/// # Errors
/// When EC2 does not answer, or the region has fewer than two such zones.
pub(crate) async fn choose(account: &Account) -> Result<Vec<String>, CallError> {
    let doing = "find the availability zones of this region";
    let usual = Filter::builder()
        .name("zone-type")
        .values("availability-zone")
        .build();
    let asked = Client::new(&account.config)
        .describe_availability_zones()
        .filters(usual)
        .send()
        .await;
    let answer = asked.map_err(CallError::of(doing))?;
    let zones = chosen(&account.region, answer.availability_zones());
    if zones.len() < 2 {
        let found = if zones.is_empty() { "none" } else { "one" };
        let message = format!(
            "{} has {found} with Fargate that this account may use, and the stack needs two: bring your own network with --parameter \
             VpcId=… and SubnetIds=…, or use another --region",
            account.region
        );
        return Err(CallError::new(doing, message));
    }
    Ok(zones)
}

/// Returns the first three zones, by name, that take tasks.
fn chosen(region: &str, zones: &[AvailabilityZone]) -> Vec<String> {
    let limited = LIMITED
        .iter()
        .find(|(name, _)| *name == region)
        .map(|(_, ids)| *ids);
    let takes_tasks = |zone: &&AvailabilityZone| {
        let has_fargate =
            limited.is_none_or(|ids| zone.zone_id().is_some_and(|id| ids.contains(&id)));
        zone.state() == Some(&AvailabilityZoneState::Available) && has_fargate
    };
    let mut names: Vec<_> = zones
        .iter()
        .filter(takes_tasks)
        .filter_map(|zone| zone.zone_name())
        .collect();
    names.sort_unstable();
    names
        .into_iter()
        .take(PARAMETERS.len())
        .map(str::to_owned)
        .collect()
}

/// Returns the zones of a stack's subnets; none if the stack has no network of its own. The zones
/// must not change: CloudFormation would have to replace a subnet in another zone, which fails
/// because the subnet's addresses are taken.
///
/// # Errors
/// When CloudFormation or EC2 does not answer.
pub(crate) async fn of_stack(
    account: &Account,
    name: &StackName,
) -> Result<Vec<String>, CallError> {
    let mut resources = Stacks::new(account, name).resources().await?;
    let ids: Vec<_> = SUBNETS
        .into_iter()
        .filter_map(|subnet| resources.remove(subnet))
        .collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let asked = Client::new(&account.config)
        .describe_subnets()
        .set_subnet_ids(Some(ids.clone()))
        .send()
        .await;
    let answer = asked.map_err(CallError::of("look at the stack's subnets"))?;
    let zone_of = |id: &String| {
        let subnet = answer
            .subnets()
            .iter()
            .find(|subnet| subnet.subnet_id() == Some(id))?;
        subnet.availability_zone().map(str::to_owned)
    };
    Ok(ids.iter().filter_map(zone_of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, id: &str, state: AvailabilityZoneState) -> AvailabilityZone {
        AvailabilityZone::builder()
            .zone_name(name)
            .zone_id(id)
            .state(state)
            .build()
    }

    #[test]
    fn zones_without_fargate_and_zones_that_are_not_available_are_left_out() {
        let all = |letters: &str, prefix: &str| -> Vec<_> {
            let one = |(index, letter): (usize, char)| {
                zone(
                    &format!("r{letter}"),
                    &format!("{prefix}-az{}", index + 1),
                    AvailabilityZoneState::Available,
                )
            };
            letters.chars().enumerate().map(one).collect()
        };
        assert_eq!(
            chosen("us-east-1", &all("fabdce", "use1")),
            ["ra", "rb", "rc"]
        );
        assert_eq!(chosen("us-west-1", &all("abc", "usw1")), ["ra", "rc"]);
        assert_eq!(
            chosen("ap-northeast-1", &all("abcd", "apne1")),
            ["ra", "rb", "rd"]
        );
        let mut impaired = all("abc", "euw1");
        impaired[1] = zone("rb", "euw1-az2", AvailabilityZoneState::Unavailable);
        assert_eq!(chosen("eu-west-1", &impaired), ["ra", "rc"]);
    }
}
