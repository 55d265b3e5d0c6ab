//! What once failed in the lab and must not fail again: every file of `sim/scenarios`, whose README says what each
//! was. (Those of the cluster are run by `cluster.rs`.)

#![allow(clippy::unwrap_used)]

use std::path::Path;

use turnwise_sim::lab::run;
use turnwise_sim::scenario::Scenario;

#[test]
fn what_once_failed_does_not_fail_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let mut ran = 0;
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(readme.contains(&format!("`{name}`")), "{name} is not in the README");
        let scenario = Scenario::from_json(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let report = run(&scenario);
        assert_eq!(report.violations, [], "{name}");
        ran += 1;
    }
    let told = readme.matches("\n| `").count() - readme.matches("\n| `cluster/").count();
    assert_eq!(ran, told, "the README names files that are not there");
}
