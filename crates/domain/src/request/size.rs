//! A task's CPU and memory: exactly the pairs that Fargate offers.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// CPU units and memory of a task, one of Fargate's pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Pair", into = "Pair")]
pub struct TaskSize {
    cpu: u32,
    memory: u32,
}

/// The stored form of a [`TaskSize`].
#[derive(Serialize, Deserialize)]
struct Pair {
    cpu: u32,
    memory: u32,
}

/// Why a pair is not a [`TaskSize`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SizeError {
    /// Fargate has no such CPU size.
    #[error(
        "{0} CPU units are not offered by Fargate: use 256, 512, 1024, 2048, 4096, 8192 or 16384 (1024 = one vCPU)"
    )]
    Cpu(u64),
    /// Fargate does not offer this memory with this CPU size.
    #[error("{memory} MB does not go with {cpu} CPU units on Fargate: use {}", allowed(*.cpu))]
    Memory {
        /// CPU units, one of Fargate's.
        cpu: u32,
        /// Memory asked for, in MB.
        memory: u64,
    },
    /// No CPU size goes with this memory.
    #[error(
        "{0} MB is not offered by Fargate: use 512, or 1024 to 122880 in the steps its CPU size allows (256 → 512, 1024 or 2048 MB)"
    )]
    NoCpu(u64),
}

/// The memory that one CPU size may have: from `least` to `most` MB in steps of `step`. 256 units
/// may also have 512 MB.
struct Offer {
    cpu: u32,
    least: u32,
    most: u32,
    step: u32,
}

/// Fargate's pairs, memory in MB. Source: the ECS API model, `RegisterTaskDefinitionRequest$cpu`
/// and `$memory`.
const OFFERS: [Offer; 7] = [
    Offer {
        cpu: 256,
        least: 1024,
        most: 2048,
        step: 1024,
    },
    Offer {
        cpu: 512,
        least: 1024,
        most: 4096,
        step: 1024,
    },
    Offer {
        cpu: 1024,
        least: 2048,
        most: 8192,
        step: 1024,
    },
    Offer {
        cpu: 2048,
        least: 4096,
        most: 16384,
        step: 1024,
    },
    Offer {
        cpu: 4096,
        least: 8192,
        most: 30720,
        step: 1024,
    },
    Offer {
        cpu: 8192,
        least: 16384,
        most: 61440,
        step: 4096,
    },
    Offer {
        cpu: 16384,
        least: 32768,
        most: 122_880,
        step: 8192,
    },
];

/// The only memory that is not a multiple of 1024 MB; it goes with 256 CPU units alone.
const SMALLEST: u32 = 512;

impl Offer {
    fn includes(&self, memory: u64) -> bool {
        let stepped = (u64::from(self.least)..=u64::from(self.most)).contains(&memory)
            && memory.is_multiple_of(u64::from(self.step));
        stepped || memory == u64::from(self.smallest())
    }

    fn smallest(&self) -> u32 {
        if self.cpu == 256 {
            SMALLEST
        } else {
            self.least
        }
    }
}

impl TaskSize {
    /// The smallest task: 256 CPU units, 512 MB.
    pub const SMALLEST: Self = Self {
        cpu: 256,
        memory: SMALLEST,
    };

    /// Returns the size for CPU units (1024 = one vCPU) and memory in MB.
    ///
    /// # Errors
    /// [`SizeError`] if Fargate does not offer the pair.
    pub fn new(cpu: u64, memory: u64) -> Result<Self, SizeError> {
        let offer = offer(cpu)?;
        match u32::try_from(memory) {
            Ok(exact) if offer.includes(memory) => Ok(Self {
                cpu: offer.cpu,
                memory: exact,
            }),
            _ => Err(SizeError::Memory {
                cpu: offer.cpu,
                memory,
            }),
        }
    }

    /// Returns `cpu` with this size's memory. If the two do not match, the least memory that goes
    /// with `cpu` is chosen.
    ///
    /// # Errors
    /// [`SizeError::Cpu`] if Fargate has no such CPU size.
    pub fn with_cpu(self, cpu: u64) -> Result<Self, SizeError> {
        let offer = offer(cpu)?;
        Ok(Self::new(cpu, u64::from(self.memory)).unwrap_or(Self {
            cpu: offer.cpu,
            memory: offer.smallest(),
        }))
    }

    /// Returns `memory` in MB with this size's CPU. If the two do not match, the least CPU that
    /// goes with `memory` is chosen.
    ///
    /// # Errors
    /// [`SizeError::NoCpu`] if no CPU size goes with `memory`.
    pub fn with_memory(self, memory: u64) -> Result<Self, SizeError> {
        let cpus = std::iter::once(self.cpu).chain(OFFERS.iter().map(|offer| offer.cpu));
        cpus.filter_map(|cpu| Self::new(u64::from(cpu), memory).ok())
            .next()
            .ok_or(SizeError::NoCpu(memory))
    }

    /// Returns the CPU units; 1024 are one vCPU.
    pub fn cpu(self) -> u32 {
        self.cpu
    }

    /// Returns the memory in MB (of 1024 × 1024 bytes).
    pub fn memory(self) -> u32 {
        self.memory
    }
}

impl TryFrom<Pair> for TaskSize {
    type Error = SizeError;

    fn try_from(pair: Pair) -> Result<Self, Self::Error> {
        Self::new(u64::from(pair.cpu), u64::from(pair.memory))
    }
}

impl From<TaskSize> for Pair {
    fn from(size: TaskSize) -> Self {
        Self {
            cpu: size.cpu,
            memory: size.memory,
        }
    }
}

fn offer(cpu: u64) -> Result<&'static Offer, SizeError> {
    OFFERS
        .iter()
        .find(|offer| u64::from(offer.cpu) == cpu)
        .ok_or(SizeError::Cpu(cpu))
}

/// Returns the memory that goes with a CPU size, in words.
fn allowed(cpu: u32) -> String {
    match OFFERS.iter().find(|offer| offer.cpu == cpu) {
        Some(Offer { cpu: 256, .. }) => "512, 1024 or 2048".to_owned(),
        Some(Offer {
            least, most, step, ..
        }) => format!("{least} to {most} in steps of {step}"),
        None => "another CPU size".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pairs as AWS lists them: CPU units and the memory values that go with them, in GB.
    const LISTED: [(u64, u64, u64, u64); 7] = [
        (256, 1, 2, 1),
        (512, 1, 4, 1),
        (1024, 2, 8, 1),
        (2048, 4, 16, 1),
        (4096, 8, 30, 1),
        (8192, 16, 60, 4),
        (16384, 32, 120, 8),
    ];

    fn listed(cpu: u64, memory: u64) -> bool {
        (cpu, memory) == (256, 512)
            || LISTED.iter().any(|&(units, least, most, step)| {
                units == cpu
                    && (least..=most)
                        .step_by(step as usize)
                        .any(|gb| gb * 1024 == memory)
            })
    }

    #[test]
    fn exactly_the_listed_pairs_are_accepted() {
        for cpu in (0..=20_000).step_by(128) {
            for memory in (0..=130_000).step_by(512) {
                assert_eq!(
                    TaskSize::new(cpu, memory).is_ok(),
                    listed(cpu, memory),
                    "{cpu} {memory}"
                );
            }
        }
    }

    #[test]
    fn a_refused_pair_is_told_what_goes_with_its_cpu() {
        let fault = |cpu, memory| TaskSize::new(cpu, memory).unwrap_err().to_string();
        assert_eq!(
            fault(300, 512),
            "300 CPU units are not offered by Fargate: use 256, 512, 1024, 2048, 4096, 8192 or 16384 (1024 = one vCPU)"
        );
        assert_eq!(
            fault(256, 4096),
            "4096 MB does not go with 256 CPU units on Fargate: use 512, 1024 or 2048"
        );
        assert_eq!(
            fault(1024, 512),
            "512 MB does not go with 1024 CPU units on Fargate: use 2048 to 8192 in steps of 1024"
        );
        assert_eq!(
            fault(8192, 17408),
            "17408 MB does not go with 8192 CPU units on Fargate: use 16384 to 61440 in steps of 4096"
        );
        assert_eq!(
            fault(256, u64::MAX),
            "18446744073709551615 MB does not go with 256 CPU units on Fargate: use 512, 1024 or 2048"
        );
    }

    #[test]
    fn one_of_the_two_brings_the_least_of_the_other_that_fits() {
        let pair = |size: TaskSize| (size.cpu(), size.memory());
        let default = TaskSize::SMALLEST;
        assert_eq!(pair(default.with_cpu(256).unwrap()), (256, 512));
        assert_eq!(pair(default.with_cpu(4096).unwrap()), (4096, 8192));
        assert_eq!(pair(default.with_memory(2048).unwrap()), (256, 2048));
        assert_eq!(pair(default.with_memory(16384).unwrap()), (2048, 16384));
        assert_eq!(default.with_cpu(1), Err(SizeError::Cpu(1)));
        assert_eq!(
            default.with_memory(700).unwrap_err().to_string(),
            "700 MB is not offered by Fargate: use 512, or 1024 to 122880 in the steps its CPU size allows (256 → 512, 1024 or 2048 MB)"
        );
    }

    #[test]
    fn a_stored_pair_is_checked_again() {
        let size: TaskSize = serde_json::from_str(r#"{"cpu":1024,"memory":2048}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&size).unwrap(),
            r#"{"cpu":1024,"memory":2048}"#
        );
        assert!(serde_json::from_str::<TaskSize>(r#"{"cpu":1024,"memory":2049}"#).is_err());
    }
}
