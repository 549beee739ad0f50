//! AWS's list prices of tasks.

use std::{ops::Add, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    limit::CapacityPool,
    request::{Arch, LaunchRequest, TaskStorage},
};

/// Billionths of a US dollar. The smallest task costs 164,583 of them for a minute on
/// demand.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NanoUsd(pub u64);

impl NanoUsd {
    /// The amount in dollars.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a float has room for nine million dollars to the billionth"
    )]
    pub fn usd(self) -> f64 {
        self.0 as f64 / NANO
    }

    /// The amount of so many dollars, rounded. A negative amount becomes zero.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is rounded, and a cast of a float stays within the integer's bounds"
    )]
    pub fn of(usd: f64) -> Self {
        Self((usd * NANO).round() as u64)
    }
}

/// How many billionths a dollar has.
const NANO: f64 = 1e9;

impl Add for NanoUsd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

/// The price of an architecture's processors and memory, in US dollars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ComputePrice {
    /// A vCPU for an hour.
    pub vcpu: f64,
    /// A GB of memory for an hour.
    pub gb: f64,
}

/// The list prices of a region, in US dollars an hour.
#[derive(Clone, Debug, PartialEq)]
pub struct PriceList {
    /// The source of the prices: a region and a month, or `stack`. It is short, because each attempt
    /// keeps it.
    pub basis: String,
    /// The price of Arm processors.
    pub arm64: ComputePrice,
    /// The price of Intel's and AMD's processors.
    pub x86_64: ComputePrice,
    /// A GB of disk beyond [those that each task has](TaskStorage::FREE).
    pub storage_gb: f64,
    /// A public IPv4 address.
    pub ipv4: f64,
}

/// The region whose prices are built in.
const BUILT_IN_REGION: &str = "us-east-1";
/// The basis of prices that a stack was given.
pub(crate) const BASIS_OF_STACK: &str = "stack";
/// The lowest price of Fargate Spot, as a part of the price on demand: the discount is up to 70 %
/// (AWS Fargate pricing). The price floats, and is never above that on demand.
const SPOT_LOWEST: f64 = 0.3;

impl PriceList {
    /// AWS's list prices of a region, if they are built in.
    #[must_use]
    pub fn of_region(region: &str) -> Option<Self> {
        (region == BUILT_IN_REGION).then(|| Self {
            basis: format!("{BUILT_IN_REGION} 2026-11"),
            arm64: ComputePrice {
                vcpu: 0.03238,
                gb: 0.00356,
            },
            x86_64: ComputePrice {
                vcpu: 0.04048,
                gb: 0.004_445,
            },
            storage_gb: 0.000_111,
            ipv4: 0.005,
        })
    }

    /// The price of an attempt of this request in this pool; `None` on one machine, where nothing
    /// is billed.
    #[must_use]
    pub fn attempt(
        &self,
        request: &LaunchRequest,
        pool: CapacityPool,
        has_ipv4: bool,
    ) -> Option<AttemptPrice> {
        let lowest = match pool {
            CapacityPool::Machine => return None,
            CapacityPool::Fargate => 1.0,
            CapacityPool::FargateSpot => SPOT_LOWEST,
        };
        let compute = match request.arch {
            Arch::Arm64 => self.arm64,
            Arch::X86_64 => self.x86_64,
        };
        let vcpus = f64::from(request.size.cpu()) / 1024.0;
        let gb = f64::from(request.size.memory()) / 1024.0;
        let compute = compute.vcpu * vcpus + compute.gb * gb;
        let address = if has_ipv4 { self.ipv4 } else { 0.0 };
        let beyond = |storage: TaskStorage| f64::from(storage.gb() - TaskStorage::FREE);
        let disk = self.storage_gb * request.storage.map_or(0.0, beyond);
        Some(AttemptPrice {
            low: NanoUsd::of(compute * lowest + disk + address),
            high: NanoUsd::of(compute + disk + address),
            basis: self.basis.clone(),
        })
    }
}

impl FromStr for PriceList {
    type Err = String;

    /// Reads the prices that a stack was given: `name=dollars` with commas between.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut given = Vec::new();
        for item in text.split(',') {
            let (name, price) = item
                .split_once('=')
                .ok_or_else(|| format!("'{item}' is not of the form name=dollars"))?;
            let name = name.trim();
            if !PRICE_NAMES.contains(&name) {
                let names = PRICE_NAMES.join(", ");
                return Err(format!("'{name}' is no price; there are {names}"));
            }
            let price = price.trim();
            let dollars: f64 = price
                .parse()
                .ok()
                .filter(|dollars: &f64| dollars.is_finite() && *dollars >= 0.0)
                .ok_or_else(|| format!("{name}: '{price}' is no number of dollars"))?;
            given.push((name, dollars));
        }
        let price = |name: &str| {
            let found = given.iter().rev().find(|(given, _)| *given == name);
            found
                .map(|(_, dollars)| *dollars)
                .ok_or_else(|| format!("{name} is missing"))
        };
        let [arm_vcpu, arm_gb, x86_vcpu, x86_gb, storage_gb, ipv4] = PRICE_NAMES;
        Ok(Self {
            basis: BASIS_OF_STACK.to_owned(),
            arm64: ComputePrice {
                vcpu: price(arm_vcpu)?,
                gb: price(arm_gb)?,
            },
            x86_64: ComputePrice {
                vcpu: price(x86_vcpu)?,
                gb: price(x86_gb)?,
            },
            storage_gb: price(storage_gb)?,
            ipv4: price(ipv4)?,
        })
    }
}

/// The names of the prices that a stack can be given, each in dollars an hour.
const PRICE_NAMES: [&str; 6] = [
    "arm64-vcpu",
    "arm64-gb",
    "x86_64-vcpu",
    "x86_64-gb",
    "storage-gb",
    "ipv4",
];

/// The price of an attempt for an hour, as an attempt keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptPrice {
    /// The lowest price, in billionths of a dollar.
    pub low: NanoUsd,
    /// The highest.
    pub high: NanoUsd,
    /// The source of the prices ([`PriceList::basis`]).
    pub basis: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Defaults, SubmitRequest};

    fn us_east_1() -> PriceList {
        PriceList::of_region(BUILT_IN_REGION).expect("it is built in")
    }

    fn request(arch: &str) -> LaunchRequest {
        let request = SubmitRequest {
            command: Some("true".into()),
            arch: Some(arch.into()),
            ..SubmitRequest::default()
        };
        request.validate(&Defaults::aws()).expect("it is valid")
    }

    #[test]
    fn an_hour_has_the_price_of_its_architecture_address_and_capacity() {
        let hour = |arch, pool, has_ipv4| {
            let price = us_east_1().attempt(&request(arch), pool, has_ipv4);
            price.map(|price| (price.low.0, price.high.0))
        };
        let on_demand = CapacityPool::Fargate;
        // A quarter of a vCPU, and half a GB.
        assert_eq!(
            hour("arm64", on_demand, false),
            Some((9_875_000, 9_875_000))
        );
        assert_eq!(
            hour("x86_64", on_demand, false),
            Some((12_342_500, 12_342_500))
        );
        assert_eq!(
            hour("x86_64", on_demand, true),
            Some((17_342_500, 17_342_500))
        );
        let spot = CapacityPool::FargateSpot;
        assert_eq!(hour("arm64", spot, true), Some((7_962_500, 14_875_000)));
        assert_eq!(hour("arm64", CapacityPool::Machine, true), None);
        let large = LaunchRequest {
            storage: TaskStorage::new(120).ok(),
            ..request("arm64")
        };
        let price = us_east_1().attempt(&large, spot, false);
        let price = price.map(|price| (price.low.0, price.high.0));
        assert_eq!(price, Some((14_062_500, 20_975_000)), "100 GB more");
    }

    #[test]
    fn the_prices_of_a_stack_are_complete_or_refused_by_name() {
        let all = "arm64-vcpu=0.04,arm64-gb=0.004,x86_64-vcpu=0.05, x86_64-gb=0.005,storage-gb=0.0001,ipv4=0.005";
        let list: PriceList = all.parse().expect("complete");
        assert!((list.x86_64.gb - 0.005).abs() < f64::EPSILON);
        for (wrong, says) in [
            (all.replace(",ipv4=0.005", ""), "ipv4 is missing"),
            (all.replace("=0.04,", "=a lot,"), "no number of dollars"),
            (all.replace("=0.04,", "=-1,"), "no number of dollars"),
            (all.replace("arm64-gb", "mips-gb"), "'mips-gb' is no price"),
            (all.replace("ipv4=", "ipv4 "), "name=dollars"),
        ] {
            let fault = wrong.parse::<PriceList>().expect_err("refused");
            assert!(fault.contains(says), "{fault}");
        }
        assert_eq!(PriceList::of_region("eu-central-1"), None);
    }
}
