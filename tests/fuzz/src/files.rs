//! Files of the command line: `.mycli.yaml`, and the lines of `bulk`.

use std::path::PathBuf;

use domain::request::SubmitRequest;

use crate::{api::check, is_fit_for_a_terminal, lines, places, project::Project};

pub(crate) const PROJECTS: &[&str] = &[
    "image: alpine\n",
    "# all\nrepo: https://github.com/acme/infra.git\nbranch: main\nimage: hashicorp/terraform:1.9\ntimeout: 30m\ncpu: 512\nmemory: 1024\nenv:\n  A: b\n  C: \"d\"\nsecrets:\n  - S\nretry_on: [spot]\n",
    "env: {A: &a x, B: *a}\ncapacity: on-demand\narch: x86_64\nlock: l\ngroup: g\npriority: 1\nretries: 2\nname: n\n",
    "env:\nsecrets:\n",
    "",
];

pub(crate) const LINES: &[&str] = &[
    "{\"command\": \"true\"}\n\n{\"command\": \"npm run build -- a\", \"cpu\": 512}\r\n",
    "\u{feff}{\"command\":\"x\",\"env\":{\"A\":\"b\"},\"secrets\":[\"S\"],\"repo\":null}\n{\"comand\":1}\n",
    "{\"command\":\"x\",\"env\":{\"A\":1}}\n",
];

/// An accepted file means the same when it is written out again. A refused one gives an error that
/// names the file.
pub(crate) fn project(bytes: &[u8]) {
    let Ok(text) = String::from_utf8(bytes.to_vec()) else {
        return;
    };
    match Project::parse(PathBuf::from(".mycli.yaml"), text) {
        Ok(project) => {
            assert!(project.request.command.is_none() && project.request.idempotency_key.is_none());
            let written = serde_norway::to_string(&project.request).expect("it can be written");
            assert_eq!(
                serde_norway::from_str::<SubmitRequest>(&written).expect("it is read"),
                project.request,
                "{written}"
            );
            places()
                .iter()
                .for_each(|defaults| check(&project.request, defaults));
        }
        Err(error) => assert!(error.to_string().starts_with(".mycli.yaml"), "{error}"),
    }
}

/// A line is either read or reported as a fault. A line that was read can be sent, and reads the
/// same again.
pub(crate) fn lines(bytes: &[u8]) {
    let mut faults = lines::LineFaults::of("lines");
    let read = lines::read(bytes, &mut faults);
    let (at_fault, told) = faults.told().unwrap_or_default();
    assert!(
        told.iter()
            .all(|fault| fault.to_string().starts_with("lines:")),
        "{told:?}"
    );
    let written = bytes.split(|byte| *byte == b'\n').count();
    assert!(
        read.len() + at_fault <= written,
        "{} and {at_fault} of {written}",
        read.len()
    );
    let defaults = lines::keys_of(&SubmitRequest {
        image: Some("alpine".into()),
        env: [("A".to_owned(), "b".to_owned())].into(),
        secrets: vec!["S".into()],
        ..SubmitRequest::default()
    });
    for line in &read {
        let mut again = lines::LineFaults::of("lines");
        let text = serde_json::to_vec(&line.keys).expect("it can be written");
        let [same] = &lines::read(&text, &mut again)[..] else {
            panic!("a line that was read is refused: {line:?}")
        };
        assert_eq!(same.keys, line.keys);
        let whole = lines::over(&defaults, &line.keys);
        for defaults in places() {
            lines::check(&whole, &defaults)
                .iter()
                .for_each(|fault| is_fit_for_a_terminal(&fault.to_string()));
        }
    }
}
