//! Prints what a release is made of, as CycloneDX 1.6 (ECMA-424). Usage: `cargo run --package
//! deploy --example sbom -- TARGET > FILE`.
//!
//! The document lists the programs and every crate that is compiled into one of them for this
//! target, with licence, checksum and dependencies. The data comes from `cargo metadata` and
//! `Cargo.lock`, from which the release was built. The same source gives the same text.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    error::Error,
    io::{self, Write},
    process::Command,
};

use serde_json::{Value, json};

/// The program of a release. Its functions are `deploy::package::FUNCTIONS`.
const PROGRAM: &str = "mycli";

fn main() -> Result<(), Box<dyn Error>> {
    let target = env::args()
        .nth(1)
        .ok_or("name the target the release is for, as rustc does")?;
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args([
        "metadata",
        "--locked",
        "--format-version",
        "1",
        "--filter-platform",
        &target,
    ]);
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata failed: {}", output.status).into());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let lock =
        std::fs::read_to_string(format!("{}/Cargo.lock", text(&metadata["workspace_root"])))?;
    let programs: Vec<_> = std::iter::once(PROGRAM)
        .chain(deploy::package::FUNCTIONS)
        .collect();
    let bom = bom(&metadata, &checksums(&lock), &programs)?;
    writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&bom)?)?;
    Ok(())
}

/// Returns the checksums in a `Cargo.lock`, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |package: &str, key: &str| {
        let line = package.lines().find_map(|line| {
            line.strip_prefix(key)?
                .strip_prefix(" = \"")?
                .strip_suffix('"')
        });
        line.map(str::to_owned)
    };
    let package = |package: &str| {
        Some((
            (value(package, "name")?, value(package, "version")?),
            value(package, "checksum")?,
        ))
    };
    lock.split("[[package]]").filter_map(package).collect()
}

/// Returns the bill of materials of these programs.
fn bom(
    metadata: &Value,
    checksums: &BTreeMap<(String, String), String>,
    programs: &[&str],
) -> Result<Value, String> {
    let packages: BTreeMap<_, _> = list(&metadata["packages"])
        .map(|package| (text(&package["id"]), package))
        .collect();
    let needs: BTreeMap<_, _> = list(&metadata["resolve"]["nodes"])
        .map(|node| (text(&node["id"]), compiled_in(node)))
        .collect();
    let is_ours = |id: &str| packages[id]["source"].is_null();
    let mut roots = Vec::new();
    for program in programs {
        let root = packages
            .iter()
            .find(|(id, package)| package["name"] == *program && is_ours(id));
        roots.push(
            *root
                .ok_or_else(|| format!("there is no package {program}"))?
                .0,
        );
    }
    let (mut found, mut left) = (BTreeSet::new(), roots.clone());
    while let Some(id) = left.pop() {
        if found.insert(id) {
            left.extend(needs.get(id).into_iter().flatten().copied());
        }
    }
    let reference = |id: &str| purl(packages[id]);
    let component = |id: &&str| {
        let package = packages[*id];
        let kind = if roots.contains(id) {
            "application"
        } else {
            "library"
        };
        let mut component = json!({
            "type": kind, "bom-ref": reference(id), "name": package["name"], "version": package["version"], "purl": reference(id),
            "licenses": [{"expression": text(&package["license"]).split('/').map(str::trim).collect::<Vec<_>>().join(" OR ")}],
        });
        let key = (
            text(&package["name"]).to_owned(),
            text(&package["version"]).to_owned(),
        );
        if let Some(checksum) = checksums.get(&key).filter(|_| !is_ours(id)) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
        }
        component
    };
    let dependency = |id: &&str| {
        let on: BTreeSet<_> = needs
            .get(*id)
            .into_iter()
            .flatten()
            .map(|id| reference(id))
            .collect();
        json!({"ref": reference(id), "dependsOn": on})
    };
    let version = &packages[roots[0]]["version"];
    Ok(json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "release", "name": "mycli release", "version": version}},
        "components": found.iter().map(component).collect::<Vec<_>>(),
        "dependencies": std::iter::once(json!({"ref": "release", "dependsOn": roots.iter().map(|id| reference(id)).collect::<Vec<_>>()}))
            .chain(found.iter().map(dependency)).collect::<Vec<_>>(),
    }))
}

/// Returns the dependencies that are compiled into a crate. Those of its tests and its build script
/// are in no program.
fn compiled_in(node: &Value) -> Vec<&str> {
    let is_compiled_in =
        |needed: &&Value| list(&needed["dep_kinds"]).any(|kind| kind["kind"].is_null());
    list(&node["deps"])
        .filter(is_compiled_in)
        .map(|needed| text(&needed["pkg"]))
        .collect()
}

/// Returns a package's URL (<https://github.com/package-url/purl-spec>). Our own crates are in no
/// registry, so they get the type `generic`.
fn purl(package: &Value) -> String {
    let kind = if package["source"].is_null() {
        "generic"
    } else {
        "cargo"
    };
    format!(
        "pkg:{kind}/{}@{}",
        text(&package["name"]),
        text(&package["version"]).replace('+', "%2B")
    )
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(id: &str, source: &Value) -> Value {
        json!({"id": id, "name": id, "version": "1.0.0+a", "license": "MIT/Apache-2.0", "source": source})
    }

    fn node(id: &str, deps: &[(&str, Value)]) -> Value {
        let dep = |(pkg, kind): &(&str, Value)| json!({"pkg": pkg, "dep_kinds": [{"kind": kind}]});
        json!({"id": id, "deps": deps.iter().map(dep).collect::<Vec<_>>()})
    }

    #[test]
    fn what_is_compiled_in_is_listed_and_nothing_else() {
        let registry = json!("registry+https://example.invalid");
        let packages = ["deep", "direct", "for-tests", "for-building", "of-another"]
            .map(|id| package(id, &registry));
        let metadata = json!({
            "packages": packages.into_iter().chain([package("tool", &Value::Null), package("another", &Value::Null)]).collect::<Vec<_>>(),
            "resolve": {"nodes": [
                node("tool", &[("direct", Value::Null), ("for-tests", json!("dev")), ("for-building", json!("build"))]),
                node("direct", &[("deep", Value::Null)]),
                node("deep", &[]),
                node("another", &[("of-another", Value::Null)]),
            ]},
        });
        let lock = "[[package]]\nname = \"deep\"\nversion = \"1.0.0+a\"\nsource = \"registry\"\nchecksum = \"0123\"\n\n[[package]]\nname = \"tool\"\nversion = \"1.0.0+a\"\n";
        let bom = bom(&metadata, &checksums(lock), &["tool"]).expect("the program is there");
        let names: Vec<_> = list(&bom["components"])
            .map(|one| text(&one["name"]))
            .collect();
        assert_eq!(names, ["deep", "direct", "tool"]);
        let deep = &bom["components"][0];
        assert_eq!(
            deep["hashes"],
            json!([{"alg": "SHA-256", "content": "0123"}])
        );
        assert_eq!(
            deep["licenses"],
            json!([{"expression": "MIT OR Apache-2.0"}])
        );
        assert_eq!(
            (&deep["purl"], &deep["type"]),
            (&json!("pkg:cargo/deep@1.0.0%2Ba"), &json!("library"))
        );
        assert_eq!(bom["components"][2]["type"], "application");
        let told: BTreeSet<_> = list(&bom["dependencies"])
            .map(|one| text(&one["ref"]))
            .collect();
        assert!(
            list(&bom["dependencies"])
                .flat_map(|one| list(&one["dependsOn"]))
                .all(|one| told.contains(text(one))),
            "{bom:#}"
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let nothing = json!({"packages": [], "resolve": {"nodes": []}});
        assert!(
            bom(&nothing, &BTreeMap::new(), &["tool"]).is_err_and(|error| error.contains("tool"))
        );
    }
}
