//! Hostile input: files and folders that someone made to do harm, or that went wrong on their way, each with the verdict
//! that the program must give. A case is a few files and a few commands (`case.rs`); `run.rs` runs the commands and says
//! what every case must keep. A file for each kind of input holds its cases, as tables.
//!
//! Needs Linux, for what a process took and for the files that it opened.
#![cfg(target_os = "linux")]

mod adapters;
mod case;
mod configs;
mod folders;
mod headers;
mod indices;
mod recipes;
mod run;

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use case::{Case, Want};

/// Its name, its cases (the folder is where nobody may look), and the least number of these.
type Kind = (&'static str, fn(&Path) -> Vec<Case>, usize);

#[test]
fn every_case_has_its_verdict() {
    let mut ground = run::Ground::new().unwrap();
    let outside = ground.outside();
    // One kind in memory at a time: what a process took is counted from what its parent had.
    let kinds: [Kind; 6] = [
        ("headers", |_| headers::cases(), 200),
        ("indices", indices::cases, 60),
        ("recipes", |_| recipes::cases(), 40),
        ("configurations", configs::cases, 50),
        ("adapters", adapters::cases, 30),
        ("folders", folders::cases, 20),
    ];
    let (mut names, mut wrong, mut all, mut refused) = (HashSet::new(), Vec::new(), 0, 0);
    let mut lines = String::new();
    for (kind, cases, least) in kinds {
        let cases = cases(&outside);
        assert!(cases.len() >= least, "{kind}: {} cases", cases.len());
        let bad = cases.iter().filter(|case| matches!(case.want, Want::Refused(..))).count();
        for case in &cases {
            assert!(names.insert(case.name.clone()), "{} twice", case.name);
            assert!(!case.commands.is_empty(), "{} runs nothing", case.name);
            wrong.extend(ground.check(case));
        }
        (all, refused) = (all + cases.len(), refused + bad);
        lines += &format!("hostile {kind}: {} cases, {bad} refused, {} accepted\n", cases.len(), cases.len() - bad);
    }
    lines += &format!("hostile: {all} cases, {refused} refused, {} accepted; ", all - refused);
    lines += &format!("at most {} ms and {} MiB each\n", ground.cpu.as_millis(), ground.memory >> 20);
    // To the stream itself, which is shown whether or not the test passes.
    std::io::stderr().write_all(lines.as_bytes()).unwrap();
    assert!(wrong.is_empty(), "{} of {all} cases:\n{}", wrong.len(), wrong.join("\n"));
}
