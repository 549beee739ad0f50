//! The table of this release against those of earlier ones. The template must not ask for a change
//! that no upgrade can make.

use std::{fs, path::PathBuf};

use deploy::{indexes::plan, template::Template};

/// Returns the templates of earlier releases: `fixtures/<commit>/template.yaml`.
fn earlier() -> Vec<PathBuf> {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/it/fixtures");
    let folders = fs::read_dir(fixtures)
        .unwrap()
        .map(|folder| folder.unwrap().path());
    let templates: Vec<_> = folders
        .map(|folder| folder.join("template.yaml"))
        .filter(|file| file.exists())
        .collect();
    assert!(!templates.is_empty(), "no release is kept in {fixtures}");
    templates
}

/// The table and each index that stays keep their keys, their projection and the types of their
/// attributes. Whole indexes may be added or dropped.
#[test]
fn the_table_of_every_release_can_become_this_one() {
    let wanted = Template::built_in().unwrap().table().unwrap();
    for file in earlier() {
        let deployed = Template::whole(&fs::read_to_string(&file).unwrap())
            .unwrap()
            .table()
            .unwrap();
        let plan =
            plan(&deployed, &wanted).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let last = plan.drops.last().map_or(&plan.switch, |step| &step.after);
        assert!(last.is_same(&wanted), "{}: {plan:#?}", file.display());
    }
}

/// The emulator does not keep these properties. Old functions rely on them during an upgrade.
#[test]
fn the_table_of_every_release_has_the_same_name_stream_and_time_to_live() {
    let properties = |template: &Template| {
        let template: serde_json::Value = serde_json::from_str(&template.text()).unwrap();
        let properties = template["Resources"]["Table"]["Properties"].clone();
        [
            "TableName",
            "StreamSpecification",
            "TimeToLiveSpecification",
        ]
        .map(|name| properties[name].clone())
    };
    let wanted = properties(&Template::built_in().unwrap());
    for file in earlier() {
        let deployed = Template::whole(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(properties(&deployed), wanted, "{}", file.display());
    }
}
