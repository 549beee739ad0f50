//! `kill -9` of a server under load, at random moments.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use rustix::process::Signal;
use serde_json::json;

use super::{
    http,
    stories::Server,
    world::{World, eventually},
};

const CLIENTS: usize = 4;

/// The state that the clients share.
#[derive(Default)]
struct Load {
    server: Mutex<Option<(SocketAddr, String)>>,
    accepted: AtomicUsize,
    over: AtomicBool,
    done: AtomicUsize,
}

/// Submits one run after the other. Each is repeated under its key until it is accepted: a lost
/// answer must not make two runs of one.
fn submit_all(world: &World, load: &Load, client: usize) {
    for number in 0.. {
        if load.over.load(Ordering::SeqCst) {
            load.done.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let tag = format!("{client}-{number}");
        world.promise(&tag, "SUCCEEDED", Some(0));
        let command = world.marking(&tag, "true");
        let body =
            json!({"action": "exec", "command": command, "name": tag, "idempotency_key": tag});
        let id = eventually("it is accepted", || {
            let (address, key) = load.server.lock().expect("no panic").clone()?;
            let (status, answer) = http::post(address, "/execute", &key, &body)?;
            assert!(status == 202, "{tag}: {status} {answer}");
            answer["execution_id"].as_str().map(str::to_owned)
        });
        world.accepted(&id);
        load.accepted.fetch_add(1, Ordering::SeqCst);
    }
}

/// The next number of a pseudo-random sequence that is the same each time (Knuth's multiplier).
fn next(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Runs a server until it has accepted this many submissions, maybe none, and kills it.
fn live_and_die(world: &World, load: &Load, submissions: usize) {
    let mut server = Server::start(world, &["--vcpus", "1"], None)
        .unwrap_or_else(|process| panic!("{}", process.err()));
    let before = load.accepted.load(Ordering::SeqCst);
    *load.server.lock().expect("no panic") = Some((server.address(), world.key()));
    eventually("some are accepted", || {
        (load.accepted.load(Ordering::SeqCst) >= before + submissions).then_some(())
    });
    server.process().signal(Signal::KILL);
    assert!(server.process().died());
}

#[track_caller]
#[expect(
    clippy::print_stdout,
    reason = "how much was survived is what the test is run for"
)]
fn check(kills: usize) {
    let (world, load, mut state) = (World::new(false), Load::default(), 7);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (world, load) = (&world, &load);
            scope.spawn(move || submit_all(world, load, client));
        }
        for _ in 0..kills {
            live_and_die(
                &world,
                &load,
                usize::try_from(next(&mut state) % 8).expect("it is small"),
            );
        }
        load.over.store(true, Ordering::SeqCst);
        // The last server answers the clients that still wait.
        let last =
            Server::start(&world, &[], None).unwrap_or_else(|process| panic!("{}", process.err()));
        *load.server.lock().expect("no panic") = Some((last.address(), world.key()));
        eventually("everybody is answered", || {
            (load.done.load(Ordering::SeqCst) == CLIENTS).then_some(())
        });
        assert!(!last.died());
    });
    println!(
        "killed {kills} times, accepted {}",
        load.accepted.load(Ordering::SeqCst)
    );
    world.recovers();
}

#[test]
fn a_server_killed_sixty_times_under_load_loses_nothing_and_repeats_nothing() {
    check(60);
}

#[test]
#[ignore = "nightly: five minutes"]
fn a_server_killed_five_hundred_times_under_load_loses_nothing_and_repeats_nothing() {
    check(500);
}
