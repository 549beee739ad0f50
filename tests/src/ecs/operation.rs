//! The operations that the model knows.

/// An operation of ECS (target `AmazonEC2ContainerServiceV20141113.…`) or of Service Quotas
/// (`ServiceQuotasV20190624.…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are AWS's")]
pub enum Operation {
    RunTask,
    StopTask,
    DescribeTasks,
    ListTasks,
    RegisterTaskDefinition,
    DeregisterTaskDefinition,
    DescribeTaskDefinition,
    GetServiceQuota,
    GetAwsDefaultServiceQuota,
}

impl Operation {
    /// Parses the last part of an `X-Amz-Target` header.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RunTask" => Self::RunTask,
            "StopTask" => Self::StopTask,
            "DescribeTasks" => Self::DescribeTasks,
            "ListTasks" => Self::ListTasks,
            "RegisterTaskDefinition" => Self::RegisterTaskDefinition,
            "DeregisterTaskDefinition" => Self::DeregisterTaskDefinition,
            "DescribeTaskDefinition" => Self::DescribeTaskDefinition,
            "GetServiceQuota" => Self::GetServiceQuota,
            "GetAWSDefaultServiceQuota" => Self::GetAwsDefaultServiceQuota,
            _ => return None,
        })
    }
}
