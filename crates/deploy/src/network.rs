//! The network that tasks are in, if the stack did not make it: whether a task there reaches what it
//! needs.

use aws_sdk_ec2::{
    Client,
    types::{Filter, Route, RouteTable, VpcEndpoint},
};

use crate::{Account, CallError, stack::StackView};

/// The way out of a subnet, by its default route for IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayOut {
    /// An internet gateway, which only takes what has a public address.
    InternetGateway,
    /// A NAT gateway, or anything else that may lead out.
    Other,
    /// There is none.
    None,
}

/// A network as tasks see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskNetwork {
    /// The subnets of tasks, each with its way out.
    pub subnets: Vec<(String, WayOut)>,
    /// The services that have an endpoint in the VPC, as the end of the endpoint's name has them:
    /// `ecr.api`.
    pub endpoints: Vec<String>,
    /// Whether a private endpoint of API Gateway answers for the addresses of all APIs.
    pub is_api_shadowed: bool,
    /// Whether tasks have public addresses.
    pub has_public_addresses: bool,
    /// Whether tasks call the API at an address of the operator's own (`TaskApiUrl`).
    pub has_own_api_address: bool,
}

/// The services without which no task starts where there is no way out (Amazon ECR User Guide,
/// "Amazon ECR interface VPC endpoints"; the log driver writes to CloudWatch Logs).
const OF_EVERY_TASK: [&str; 4] = ["ecr.api", "ecr.dkr", "logs", "s3"];
/// The service of the API.
const API: &str = "execute-api";

/// A fault of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkFault {
    /// Tasks in these subnets have no public address, and the internet gateway takes no others.
    NoAddress(Vec<String>),
    /// Tasks in these subnets reach nothing but endpoints, and those of these services are missing.
    NoEndpoints(Vec<String>, Vec<&'static str>),
    /// A private endpoint answers for the API's address, and does not know the API.
    Shadowed,
    /// Tasks in these subnets do not reach the API.
    NoApi(Vec<String>),
}

impl TaskNetwork {
    /// The faults, the gravest first.
    #[must_use]
    pub fn faults(&self) -> Vec<NetworkFault> {
        let with = |way: WayOut| -> Vec<_> {
            let theirs = self.subnets.iter().filter(|(_, theirs)| *theirs == way);
            theirs.map(|(id, _)| id.clone()).collect()
        };
        let (public, closed) = (with(WayOut::InternetGateway), with(WayOut::None));
        let has = |service: &str| self.endpoints.iter().any(|there| there == service);
        let missing: Vec<_> = OF_EVERY_TASK
            .into_iter()
            .filter(|service| !has(service))
            .collect();
        let mut faults = Vec::new();
        if !public.is_empty() && !self.has_public_addresses && !missing.is_empty() {
            faults.push(NetworkFault::NoAddress(public));
        }
        if !closed.is_empty() && !missing.is_empty() {
            faults.push(NetworkFault::NoEndpoints(closed.clone(), missing));
        }
        if !self.has_own_api_address {
            if self.is_api_shadowed {
                faults.push(NetworkFault::Shadowed);
            } else if !closed.is_empty() {
                faults.push(NetworkFault::NoApi(closed));
            }
        }
        faults
    }
}

/// Looks at the network that the stack was given. `None` if the stack made its own.
///
/// # Errors
/// When EC2 does not answer, or these credentials may not ask it.
pub(crate) async fn look(
    account: &Account,
    stack: &StackView,
) -> Result<Option<TaskNetwork>, CallError> {
    let parameter = |name: &str| stack.parameters.get(name).map_or("", String::as_str);
    let subnets: Vec<_> = parameter("SubnetIds")
        .split(',')
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty())
        .collect();
    if subnets.is_empty() {
        return Ok(None);
    }
    let client = Client::new(&account.config);
    let of_vpc = Filter::builder()
        .name("vpc-id")
        .values(parameter("VpcId"))
        .build();
    let pages = client.describe_route_tables().filters(of_vpc.clone());
    let tables = pages.into_paginator().items().send();
    let tables = tables.collect::<Result<Vec<_>, _>>().await;
    let tables = tables.map_err(CallError::of("look at the routes of the tasks' network"))?;
    let pages = client.describe_vpc_endpoints().filters(of_vpc);
    let endpoints = pages.into_paginator().items().send();
    let endpoints = endpoints.collect::<Result<Vec<_>, _>>().await;
    let endpoints =
        endpoints.map_err(CallError::of("look at the endpoints of the tasks' network"))?;
    Ok(Some(TaskNetwork {
        subnets: subnets
            .into_iter()
            .map(|id| {
                let way = way_out(&id, &tables);
                (id, way)
            })
            .collect(),
        endpoints: endpoints.iter().filter_map(service).collect(),
        is_api_shadowed: endpoints.iter().any(|endpoint| {
            service(endpoint).as_deref() == Some(API)
                && endpoint.private_dns_enabled() == Some(true)
        }),
        has_public_addresses: parameter("AssignPublicIp") == "true",
        has_own_api_address: !parameter("TaskApiUrl").is_empty(),
    }))
}

/// The service of an endpoint, without what comes before it in the endpoint's name:
/// `com.amazonaws.eu-central-1.ecr.api`.
fn service(endpoint: &VpcEndpoint) -> Option<String> {
    let name = endpoint.service_name()?.strip_prefix("com.amazonaws.")?;
    let (_region, service) = name.split_once('.')?;
    Some(service.to_owned())
}

/// The way out of a subnet: by the table that it is associated with, else by the VPC's main one.
fn way_out(subnet: &str, tables: &[RouteTable]) -> WayOut {
    let is_its_own = |table: &&RouteTable| {
        let mut associations = table.associations().iter();
        associations.any(|association| association.subnet_id() == Some(subnet))
    };
    let is_main = |table: &&RouteTable| {
        let mut associations = table.associations().iter();
        associations.any(|association| association.main() == Some(true))
    };
    let table = tables
        .iter()
        .find(is_its_own)
        .or_else(|| tables.iter().find(is_main));
    let routes = table.map_or(&[][..], RouteTable::routes);
    let is_default = |route: &&Route| route.destination_cidr_block() == Some("0.0.0.0/0");
    match routes.iter().find(is_default) {
        None => WayOut::None,
        Some(route) if route.gateway_id().is_some_and(|id| id.starts_with("igw-")) => {
            WayOut::InternetGateway
        }
        Some(_) => WayOut::Other,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::RouteTableAssociation;

    use super::*;

    fn table(association: RouteTableAssociation, gateway: Option<&str>) -> RouteTable {
        let local = Route::builder().destination_cidr_block("10.0.0.0/16");
        let local = local.gateway_id("local").build();
        let default = gateway.map(|id| {
            let route = Route::builder().destination_cidr_block("0.0.0.0/0");
            match id.starts_with("igw-") {
                true => route.gateway_id(id).build(),
                false => route.nat_gateway_id(id).build(),
            }
        });
        let table = RouteTable::builder()
            .associations(association)
            .routes(local);
        match default {
            Some(default) => table.routes(default).build(),
            None => table.build(),
        }
    }

    fn of_subnet(id: &str) -> RouteTableAssociation {
        RouteTableAssociation::builder().subnet_id(id).build()
    }

    #[test]
    fn a_subnet_goes_out_by_its_own_table_else_by_the_main_one() {
        let main = RouteTableAssociation::builder().main(true).build();
        let tables = [
            table(main, Some("igw-1")),
            table(of_subnet("subnet-b"), Some("nat-1")),
            table(of_subnet("subnet-c"), None),
        ];
        assert_eq!(way_out("subnet-a", &tables), WayOut::InternetGateway);
        assert_eq!(way_out("subnet-b", &tables), WayOut::Other);
        assert_eq!(way_out("subnet-c", &tables), WayOut::None);
    }

    #[test]
    fn what_a_task_does_not_reach_is_a_fault() {
        let network = |way, endpoints: &[&str]| TaskNetwork {
            subnets: vec![("subnet-a".into(), way)],
            endpoints: endpoints.iter().map(|&name| name.into()).collect(),
            is_api_shadowed: endpoints.contains(&API),
            has_public_addresses: false,
            has_own_api_address: false,
        };
        let a = || vec!["subnet-a".to_owned()];
        assert_eq!(network(WayOut::Other, &[]).faults(), []);
        let public = network(WayOut::InternetGateway, &[]);
        assert_eq!(public.faults(), [NetworkFault::NoAddress(a())]);
        let addressed = TaskNetwork {
            has_public_addresses: true,
            ..public
        };
        assert_eq!(addressed.faults(), []);
        let closed = network(WayOut::None, &["ecr.api", "ecr.dkr", "s3"]);
        assert_eq!(
            closed.faults(),
            [
                NetworkFault::NoEndpoints(a(), vec!["logs"]),
                NetworkFault::NoApi(a())
            ]
        );
        let all = ["ecr.api", "ecr.dkr", "logs", "s3", "execute-api"];
        let shadowed = network(WayOut::None, &all);
        assert_eq!(shadowed.faults(), [NetworkFault::Shadowed]);
        let told = TaskNetwork {
            has_own_api_address: true,
            ..shadowed
        };
        assert_eq!(told.faults(), []);
    }
}
