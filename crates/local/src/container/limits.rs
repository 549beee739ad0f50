//! The size limits of a container, and the limits that are dropped if an engine cannot apply them.

use crate::task::Launch;

/// CPU units in one vCPU (ECS).
const UNITS_PER_CPU: i64 = 1024;

/// Bytes in one MiB.
const MIB: i64 = 1 << 20;

/// The limits of a container; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes of memory, swap included: Fargate has no swap.
    pub(super) memory: Option<i64>,
    /// Billionths of a CPU.
    pub(super) nano_cpus: Option<i64>,
}

impl Limits {
    pub(super) fn of(launch: &Launch) -> Self {
        Self {
            memory: Some(i64::from(launch.memory) * MIB),
            nano_cpus: Some(i64::from(launch.cpu) * 1_000_000_000 / UNITS_PER_CPU),
        }
    }

    /// Returns the limits to try next after the engine has refused with this reason; `None` if the
    /// reason is not the limits. A rootless engine may have no control over them, and no engine
    /// gives more CPUs than it has. Engines tell these cases apart only in words.
    pub(super) fn without(self, refusal: &str) -> Option<Self> {
        let refusal = refusal.to_ascii_lowercase();
        let speaks_of = |words: &[&str]| words.iter().any(|word| refusal.contains(word));
        if self.nano_cpus.is_some() && speaks_of(&["cpu"]) {
            return Some(Self {
                nano_cpus: None,
                ..self
            });
        }
        if self.memory.is_some() && speaks_of(&["memory", "swap"]) {
            return Some(Self {
                memory: None,
                ..self
            });
        }
        let any = self.nano_cpus.is_some() || self.memory.is_some();
        (any && speaks_of(&["cgroup"])).then_some(Self {
            memory: None,
            nano_cpus: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Limits = Limits {
        memory: Some(1),
        nano_cpus: Some(1),
    };
    const MEMORY: Limits = Limits {
        memory: Some(1),
        nano_cpus: None,
    };
    const CPUS: Limits = Limits {
        memory: None,
        nano_cpus: Some(1),
    };
    const NONE: Limits = Limits {
        memory: None,
        nano_cpus: None,
    };

    #[test]
    fn only_the_limit_that_was_refused_is_given_up() {
        let range = "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available";
        assert_eq!(BOTH.without(range), Some(MEMORY));
        assert_eq!(MEMORY.without(range), None);
        assert_eq!(
            BOTH.without(
                "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler"
            ),
            Some(MEMORY)
        );
        assert_eq!(
            BOTH.without("opening /sys/fs/cgroup/x/memory.max: no such file"),
            Some(CPUS)
        );
        assert_eq!(
            BOTH.without("rootless containers need cgroups v2"),
            Some(NONE)
        );
        assert_eq!(
            NONE.without("cgroups v2 are needed, with the cpu and memory controllers"),
            None
        );
        assert_eq!(
            BOTH.without("exec: \"/bin/none\": no such file or directory"),
            None
        );
    }
}
