//! Service Quotas, which no emulator has.

use aws::{error::Remedy, quotas::ServiceQuotas};
use domain::limit::CapacityPool;

use super::stand_in::{Answer::File, StandIn};

#[tokio::test]
async fn an_accounts_own_quota_is_read() {
    let stand_in = StandIn::always(File(200, "quota-applied.json")).await;
    let quota = ServiceQuotas::new(&stand_in.config())
        .vcpus(CapacityPool::FargateSpot)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((quota.vcpus, quota.code), (4000.0, "L-36FBB829"));
    assert_eq!(
        stand_in.calls()[0].body,
        serde_json::json!({ "ServiceCode": "fargate", "QuotaCode": "L-36FBB829" })
    );
}

#[tokio::test]
async fn an_account_without_its_own_has_awss_default() {
    let stand_in = StandIn::new(|call, _| match call.operation.as_str() {
        "GetServiceQuota" => File(400, "quota-none.json"),
        _ => File(200, "quota-default.json"),
    })
    .await;
    let quota = ServiceQuotas::new(&stand_in.config())
        .vcpus(CapacityPool::Fargate)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((quota.vcpus, quota.code), (6.0, "L-3032A538"));
    assert_eq!(
        stand_in.operations(),
        ["GetServiceQuota", "GetAWSDefaultServiceQuota"]
    );
}

#[tokio::test]
async fn a_number_that_nobody_names_is_not_made_up() {
    let stand_in = StandIn::always(File(400, "quota-none.json")).await;
    assert_eq!(
        ServiceQuotas::new(&stand_in.config())
            .vcpus(CapacityPool::Fargate)
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn who_may_not_ask_is_told_so() {
    let stand_in = StandIn::always(File(400, "quota-denied.json")).await;
    let fault = ServiceQuotas::new(&stand_in.config())
        .vcpus(CapacityPool::Fargate)
        .await
        .unwrap_err();
    assert_eq!(fault.remedy, Remedy::Change);
    assert!(
        fault.to_string().contains("servicequotas:GetServiceQuota"),
        "{fault}"
    );
}
