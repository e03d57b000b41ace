//! Every method with every calibration, with gradients and filters, on every device: against the calibration of its own
//! uncalibrated output, as of a merge by another program.

mod common;
#[path = "common/recorded.rs"]
mod recorded;

use std::path::Path;

use magic_merge::device::Wanted;
use magic_merge::job::{Job, Output};
use magic_merge::methods::{Combine, METHODS, Method};
use magic_merge::progress::Progress;
use magic_merge::recipe::{Calibrate, ModelEntry, Params, Recipe, Space, Value};
use recorded::{Tensors, devices, golden, norm, tensors};

fn model(name: &str) -> String {
    golden(&format!("fsc/llama/{name}")).to_str().expect("UTF-8").to_owned()
}

/// A merge by `method` whose parameters differ along the depth and between kinds of tensors.
fn recipe(method: &Method, space: Space) -> Recipe {
    let filtered = |mlp: f64, other: f64| {
        Value::Filters(vec![(Some("mlp".into()), Value::Number(mlp)), (None, Value::Number(other))])
    };
    let mut params = Params::new();
    let known = [
        ("weight", filtered(0.7, 0.4)),
        ("density", Value::Gradient(vec![0.3, 0.6])),
        ("epsilon", Value::Number(0.1)),
        ("gamma", Value::Number(0.05)),
        ("lambda", filtered(0.9, 1.1)),
        ("select_topk", Value::Number(0.5)),
        ("t", if method.combine == Combine::Near { Value::Number(0.01) } else { Value::Gradient(vec![0.2, 0.7]) }),
    ];
    params.extend(known.into_iter().filter(|(key, _)| method.takes(key)).map(|(key, value)| (key.to_owned(), value)));
    let entry = |k: usize| ModelEntry {
        model: model(&format!("expert{k}")),
        data: Some(model(&format!("task{k}.safetensors"))),
        ..ModelEntry::default()
    };
    Recipe {
        method: method.name.into(),
        base: Some(model("base")),
        models: (0..method.experts.unwrap_or(3)).map(entry).collect(),
        params,
        calibrate: Calibrate { space, ..Calibrate::default() },
        ..Recipe::default()
    }
}

fn run(job: Job, dir: &Path) -> Tensors {
    let output = Output { overwrite: true, ..Output::new(dir) };
    job.run(&output, &Progress::default()).expect("a merge");
    tensors(&dir.join("model.safetensors"))
}

/// ‖a − b‖ beyond the rounding of stored values, over ‖a − base‖, at most.
fn off(a: &Tensors, b: &Tensors, base: &Tensors) -> (f64, String) {
    let distance = |(name, (_, a)): (&String, &(Vec<usize>, Vec<f32>))| {
        let (b, base) = (&b[name].1, &base[name].1);
        let difference = |x: &[f32], y: &[f32]| norm(x.iter().zip(y).map(|(x, y)| x - y));
        let excess = (difference(a, b) - 2.4e-7 * norm(a.iter().copied())).max(0.0);
        (if excess > 0.0 { excess / difference(a, base) } else { 0.0 }, name.clone())
    };
    a.iter().map(distance).max_by(|x, y| x.0.total_cmp(&y.0)).expect("a tensor")
}

#[test]
fn every_method_with_every_calibration() {
    let base = tensors(&golden("fsc/llama/base/model.safetensors"));
    let dir = tempfile::tempdir().expect("a folder");
    for method in METHODS.iter().filter(|method| method.combine != Combine::Scale) {
        let mut first: Vec<Tensors> = Vec::new();
        for device in devices() {
            let wanted = Wanted { device: device.into(), ..Wanted::default() };
            let folder = |space: Space| dir.path().join(format!("{}-{device}-{space}", method.name));
            let plain = folder(Space::None);
            let mut outs = vec![run(Job::new(recipe(method, Space::None), None, &wanted).expect("a job"), &plain)];
            // A GPU does the first two on the way to the third.
            let spaces = if device == "cpu" { vec![Space::Dsc, Space::Wsc, Space::Fsc] } else { vec![Space::Dsc] };
            for space in spaces {
                let out = run(Job::new(recipe(method, space), None, &wanted).expect("a job"), &folder(space));
                let merged = plain.to_str().expect("UTF-8");
                let given = Recipe { method: "given".into(), params: Params::new(), ..recipe(method, space) };
                let job = Job::given(given, merged, &wanted).expect("a job");
                let given = run(job, &folder(space).join("given"));
                let (e, name) = off(&out, &given, &base);
                // Task vectors of the merge that was written have lost digits to their base.
                assert!(
                    e < 1e-3,
                    "{} {space} on {device}: `{name}` {e:.1e} from its own output calibrated",
                    method.name
                );
                assert!(off(&out, &outs[0], &base).0 > 1e-3, "{} {space}: nothing was calibrated", method.name);
                outs.push(out);
            }
            for (out, first) in outs.iter().zip(&first) {
                let (e, name) = off(out, first, &base);
                assert!(e < 1e-4, "{} on {device}: `{name}` differs by {e:.1e} from the CPU's", method.name);
            }
            if first.is_empty() {
                first = outs;
            }
        }
    }
}
