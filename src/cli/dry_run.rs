//! The plan of a merge, for people and for programs.

use std::path::Path;

use magic_merge::checkpoint::{Checkpoint, Layout};
use magic_merge::job::Job;
use magic_merge::plan::{Action, Copied, Tensor};
use magic_merge::recipe::{Fit, Manifold, Space};
use serde_json::{Value, json};

use super::tables::{Column, pairs, table};
use super::text::{bytes, plural};

/// Why tensors are copied, in the order of the plan.
const COPIED: [(Copied, &str); 4] = [
    (Copied::NotFloat, "not a float type"),
    (Copied::Excluded, "excluded"),
    (Copied::Empty, "empty"),
    (Copied::Untouched, "no adapter touches it"),
];

/// The plan in words.
pub fn text(job: &Job, layout: &Layout, out: Option<&Path>) -> String {
    let plan = &job.plan;
    let models = job.checkpoints.iter().enumerate().map(|(place, checkpoint)| {
        let total = bytes(checkpoint.total_bytes());
        vec![role(job, place).to_owned(), checkpoint.name().to_owned(), checkpoint.tensors().len().to_string(), total]
    });
    let columns = [Column::Left("role"), Column::Left("model"), Column::Right("tensors"), Column::Right("bytes")];
    let calibrate = &job.recipe.calibrate;
    let calibration = match (calibrate.space, calibrate.manifold) {
        (Space::None, _) => "none".to_owned(),
        (Space::Fsc, _) if calibrate.fit == Fit::Magnitude => format!("fsc, magnitude, {}", calibrate.feature_norm),
        (Space::Fsc, _) => format!("fsc, {}", calibrate.fit),
        (space, manifold @ (Manifold::Sphere | Manifold::Tensor)) => format!("{space}, {manifold}, {}", calibrate.norm),
        (space, manifold) => format!("{space}, {manifold}"),
    };
    let mut tensors = format!("{} merged", count(job, |tensor| tensor.action == Action::Merge));
    for (why, words) in COPIED {
        match count(job, |tensor| tensor.action == Action::Copy(why)) {
            0 => {}
            copied => tensors += &format!(", {copied} copied ({words})"),
        }
    }
    if !plan.ignored.is_empty() {
        tensors += &format!(", {} ignored", plan.ignored.len());
    }
    let calibrated = count(job, |tensor| tensor.calibration.is_some());
    let mut memory = format!("{} host", bytes(plan.memory.host_peak()));
    if plan.memory.device_peak() > 0 {
        memory += &format!(", {} GPU", bytes(plan.memory.device_peak()));
    }
    if let Some(matrix) = job.largest_matrix() {
        memory += &format!(", {} of a whole matrix", bytes(matrix));
    }
    if let Some(features) = &job.features {
        let space = job.recipe.calibrate.space;
        memory += &format!(", {} of activations", bytes(features.activation_bytes(space)));
    }
    let features = job.features.iter().map(|features| {
        let sets = features.data().into_iter().map(|set| format!("{} of {}", plural(set.samples, "sample"), set.name));
        let leaves = plural(features.network.leaves.iter().filter(|leaf| leaf.tapped).count(), "operation");
        (
            "features",
            format!("{} of a {} network; {}", leaves, features.network.family, sets.collect::<Vec<_>>().join(", ")),
        )
    });
    let facts = [
        ("method", format!("{}: {}", plan.method.name, plan.method.formula)),
        (
            "calibration",
            if calibrated > 0 { format!("{calibration}: {}", plural(calibrated, "tensor")) } else { calibration },
        ),
        ("tensors", tensors),
        ("reads", bytes(plan.bytes_in())),
        ("writes", format!("{} in {}", bytes(layout.total_bytes()), plural(layout.shards().len(), "file"))),
        ("memory", format!("{memory} at most")),
        ("adapter", job.pairs().map_or("none".to_owned(), |pairs| adapter(job, pairs))),
        ("device", job.opened.title()),
        ("output", out.map_or("not named".to_owned(), |out| out.display().to_string())),
    ];
    let facts = facts.into_iter().filter(|(name, _)| *name != "adapter" || job.pairs().is_some()).collect::<Vec<_>>();
    let facts = facts[..2].iter().cloned().chain(features).chain(facts[2..].iter().cloned());
    format!("{}\n{}\nnothing was written: this was a dry run\n", table(&columns, models), pairs(facts))
}

fn adapter(job: &Job, pairs: usize) -> String {
    let rank = job.recipe.lora_out.map_or("of the ranks' sum".to_owned(), |rank| format!("of rank {rank}"));
    format!("{}, {rank} at most", plural(pairs, "pair"))
}

/// The plan as a document.
pub fn document(job: &Job, layout: &Layout, out: Option<&Path>) -> Value {
    let plan = &job.plan;
    let shards: Vec<_> = layout.shards().collect();
    let models: Vec<Value> = job.checkpoints.iter().enumerate().map(|(place, c)| model(c, role(job, place))).collect();
    let whole = job.pairs().is_none();
    let tensor = |(place, tensor): (usize, &Tensor)| {
        json!({
            "name": tensor.name,
            "shape": tensor.shape,
            "dtype": tensor.out_dtype.header_name(),
            "action": match tensor.action {
                Action::Merge => "merge",
                Action::Copy(_) => "copy",
            },
            "why": match tensor.action {
                Action::Merge => None,
                Action::Copy(why) => Some(words(why)),
            },
            "calibrated": tensor.calibration.is_some(),
            "bytes": whole.then(|| layout.tensor_bytes(place)),
            "file": whole.then(|| shards[layout.shard_of(place)].0),
        })
    };
    json!({
        "schema": "magic-plan/1",
        "version": env!("CARGO_PKG_VERSION"),
        "method": plan.method.name,
        "calibrate": job.recipe.calibrate.space.as_str(),
        "manifold": job.recipe.calibrate.manifold.as_str(),
        "seed": plan.seed,
        "device": job.opened.title(),
        "models": models,
        "merged": count(job, |tensor| tensor.action == Action::Merge),
        "copied": COPIED.map(|(why, words)| (words, count(job, |t| t.action == Action::Copy(why)))).into_iter()
            .collect::<std::collections::BTreeMap<_, _>>(),
        "calibrated": count(job, |tensor| tensor.calibration.is_some()),
        "features": job.features.as_ref().map(|features| json!({
            "family": features.network.family,
            "leaves": features.network.leaves.iter().filter(|leaf| leaf.tapped).map(|l| &l.name).collect::<Vec<_>>(),
            "data": features.data(),
            "activation_bytes": features.activation_bytes(job.recipe.calibrate.space),
        })),
        "ignored": plan.ignored,
        "bytes": {"read": plan.bytes_in(), "written": layout.total_bytes()},
        "memory": {"host": plan.memory.host_peak(), "device": plan.memory.device_peak()},
        "lora": job.pairs().map(|pairs| json!({"rank": job.recipe.lora_out, "tensors": pairs})),
        "out": out.map(|out| out.display().to_string()),
        "files": shards.iter().map(|(name, bytes)| json!({"file": name, "bytes": bytes})).collect::<Vec<_>>(),
        "warnings": plan.warnings,
        "tensors": plan.tensors.iter().enumerate().map(tensor).collect::<Vec<_>>(),
    })
}

fn count(job: &Job, which: impl Fn(&Tensor) -> bool) -> usize {
    job.plan.tensors.iter().filter(|tensor| which(tensor)).count()
}

fn words(why: Copied) -> &'static str {
    COPIED.iter().find(|(copied, _)| *copied == why).map_or("", |(_, words)| *words)
}

/// What a checkpoint is to the merge. Without a base, the first expert stands in for it.
fn role(job: &Job, place: usize) -> &'static str {
    let name = job.checkpoints[place].name();
    if job.zeros && place == 0 {
        return "base";
    }
    if job.recipe.base.as_deref() == Some(name) { "base" } else { "expert" }
}

fn model(checkpoint: &Checkpoint, role: &str) -> Value {
    json!({
        "model": checkpoint.name(),
        "role": role,
        "files": checkpoint.files().len(),
        "tensors": checkpoint.tensors().len(),
        "bytes": checkpoint.total_bytes(),
    })
}
