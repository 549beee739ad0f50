//! Two processes that start at the same moment without a store.

use super::world::World;

const PAIRS: usize = 20;

#[test]
fn two_execs_on_a_fresh_store_share_it() {
    for _ in 0..PAIRS {
        let world = World::new(false);
        let both = ["one", "two"].map(|tag| {
            world.promise(tag, "SUCCEEDED", Some(0));
            world.start(
                &[
                    "--local",
                    "exec",
                    "--no-repo",
                    "--name",
                    tag,
                    &world.marking(tag, "true"),
                ],
                None,
            )
        });
        for mut process in both {
            let status = process.end();
            assert_eq!((status.code(), process.err().as_str()), (Some(0), ""));
        }
        world.recovers();
    }
}
