//! The properties of `tests/fuzz`, each for a moment: with its seeds, and with inputs made of them.

use std::panic;

use fuzz::{TARGETS, mutation};

/// How many inputs each property gets. `just fuzz` tries millions.
const INPUTS: u64 = 3_000;

#[test]
fn each_property_holds_for_inputs_at_random() {
    for target in TARGETS {
        let seeds = target.seeds.iter().map(|seed| seed.as_bytes().to_vec());
        for input in seeds.chain((0..INPUTS).map(|number| mutation::input(target.seeds, number))) {
            let held = panic::catch_unwind(|| (target.holds)(&input));
            assert!(
                held.is_ok(),
                "{}: {:?}",
                target.name,
                String::from_utf8_lossy(&input)
            );
        }
    }
}
