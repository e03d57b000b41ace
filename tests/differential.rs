//! Our verdict on every header of the hostile corpus beside that of the `safetensors` crate, 0.8. Where the two differ it is
//! written down here, with the reason: one that is not is a mistake in one of the two.
#![cfg(unix)]

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "hostile/case.rs"]
mod case;
#[allow(dead_code, reason = "each test uses its own part")]
#[path = "hostile/headers.rs"]
mod headers;

use std::collections::HashSet;
use std::fs;
use std::io::Write;

use magic_merge::checkpoint::Checkpoint;
use safetensors::SafeTensors;

/// A reason, and the cases that it is for, by the beginnings of their names.
type Reason = (&'static str, &'static [&'static str]);

/// What we refuse and the crate accepts. Besides these, headers of more than 32 MiB (the crate: 100 MB) or of more than
/// 262144 tensors (the crate: any number).
const STRICTER: &[Reason] = &[
    (
        "the format says that a header MUST begin with `{`; the crate skips white space",
        &["header/space-in-front", "header/line-in-front", "header/tab-in-front"],
    ),
    (
        "the format forbids duplicate keys, for two readers may take two different ones; the crate takes the last, however \
         it is spelled, unless its offsets happen to leave a hole",
        &[
            "header/name-same-place",
            "header/name-no-bytes",
            "header/name-by-escape",
            "header/name-by-slash",
            "header/name-by-surrogates",
            "header/metadata-key",
            "header/metadata-long-key-twice",
        ],
    ),
    (
        "an entry is an object of three keys that the format names; a fourth may mean that the bytes are not what they \
         seem, and the crate passes over it",
        &["header/entry-strides", "header/entry-device", "header/entry-empty-key", "header/entry-key-"],
    ),
    (
        "lists for objects and objects for strings, which the crate's JSON library reads as the same",
        &["header/entry-list", "header/dtype-object"],
    ),
    ("metadata is an object of strings; the crate takes null for none", &["header/metadata-null"]),
    (
        "a shape whose dimensions overflow 64 bits once its zeros are left out; the crate multiplies in order, so a zero \
         in front hides it from whoever multiplies in another order",
        &["header/overflow-["],
    ),
    (
        "ranks beyond 16, which no tensor has and many a loader has no room for",
        &["header/rank-17", "header/rank-1000000"],
    ),
    ("a tensor without a name", &["header/name-empty"]),
    (
        "names that move the cursor, hide a part of themselves or end a C string: they are printed and passed on",
        &[
            "header/name-nul",
            "header/name-bell",
            "header/name-escape",
            "header/name-carriage-return",
            "header/name-line-break",
            "header/name-tab",
            "header/name-backspace",
            "header/name-delete",
            "header/name-c1",
            "header/name-turned",
            "header/name-isolate",
            "header/name-mark",
            "header/name-line-separator",
            "header/name-paragraph-separator",
        ],
    ),
    ("names of more than 4 KiB", &["header/name-4097", "header/name-4098", "header/name-of-1-MB", "header/name-1-MB"]),
];

/// What we accept and the crate refuses.
const MILDER: &[Reason] = &[(
    "types that are not known are copied as they are, under their name: newer files stay readable. Nothing is computed with \
     them, and their size is what the offsets say",
    &["header/type-new", "header/type-lower-case", "header/type-of-torch"],
)];

#[test]
fn every_disagreement_has_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let (mut wrong, mut used, mut all, mut differ) = (Vec::new(), HashSet::new(), 0, 0);
    for header in headers::all() {
        fs::write(&path, &header.bytes).unwrap();
        let ours = Checkpoint::open(path.to_str().unwrap(), &[]).is_ok();
        let theirs = SafeTensors::deserialize(&header.bytes).is_ok();
        all += 1;
        let reasons = match (ours, theirs) {
            (false, true) => STRICTER,
            (true, false) => MILDER,
            _ => continue,
        };
        differ += 1;
        let names = reasons.iter().flat_map(|(_, names)| names.iter());
        match names.copied().find(|name| header.name.starts_with(name)) {
            Some(name) => drop(used.insert(name)),
            None => wrong.push(format!("{}: ours {ours}, theirs {theirs}", header.name)),
        }
    }
    assert!(wrong.is_empty(), "{} of {all} without a reason:\n{}", wrong.len(), wrong.join("\n"));
    let listed = STRICTER.iter().chain(MILDER).flat_map(|(_, names)| names.iter());
    let idle: Vec<&&str> = listed.filter(|name| !used.contains(**name)).collect();
    assert!(idle.is_empty(), "no longer different: {idle:?}");
    let line =
        format!("differential: {all} headers, {differ} judged otherwise than by the crate, each with a reason\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}
