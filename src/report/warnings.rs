//! What of a merge is not as it should be, in words.

use super::{Report, TensorReport};
use crate::figures::plural;
use crate::recipe::NonFinite;
use crate::recover::Recovered;

/// A factor in feature space that is worth a warning.
const LARGE: f64 = 10.0;

/// A factor in weight space that what is left of cancelled f32 sums gets.
const NOISE: f64 = 1e6;

impl Report {
    /// Adds the warnings.
    #[doc(hidden)]
    pub fn warn(&mut self) {
        let (mut expert, mut merged, mut calibrated) = (0.0, 0.0, 0.0);
        for tensor in self.tensors.iter().filter(|tensor| tensor.xi.is_some()) {
            expert += tensor.experts.iter().map(|norm| norm * norm).sum::<f64>() / tensor.experts.len() as f64;
            merged += tensor.merged * tensor.merged;
            calibrated += tensor.calibrated * tensor.calibrated;
        }
        // In feature space this is what samples say, and a projection's purpose.
        if self.calibrate == "wsc" && calibrated < 0.98 * merged && merged <= 1.001 * expert {
            self.warnings.push(
                "calibration shortened task vectors that merging had shortened already: these experts agree more, \
                 or differ more in length, than this manifold expects; `--manifold sphere` keeps their mean length"
                    .into(),
            );
        }
        let noise = |tensor: &&TensorReport| self.calibrate == "wsc" && tensor.xi.is_some_and(|xi| xi.max > NOISE);
        let mut noise = self.tensors.iter().filter(noise);
        if let Some(first) = noise.next() {
            let others = more(" and", noise.count());
            self.warnings.push(format!(
                "the experts cancel in rows of `{}`{others}: what is left there is mostly rounding, and calibration makes \
                 it as long as they are; leave it out with `--exclude`",
                first.name
            ));
        }
        let leaves = self.features.iter().flat_map(|features| &features.leaves);
        if let Some(leaf) = leaves.filter(|leaf| leaf.xi > LARGE).max_by(|a, b| a.xi.total_cmp(&b.xi)) {
            self.warnings.push(format!(
                "features of `{}` are enlarged {:.0} times: the merge all but cancels what the experts learned there; \
                 `--fit projection` does not enlarge what cancels",
                leaf.leaf, leaf.xi
            ));
        }
        // Selections may leave out what is no number: what was lost there would not be missed.
        let fate = match self.non_finite {
            NonFinite::Base => "the base's own stand there",
            NonFinite::Error | NonFinite::Propagate => "what it learned there is lost",
        };
        let experts = self.experts.iter().map(|expert| format!("`{expert}`"));
        for (k, model) in std::iter::once("the base".to_owned()).chain(experts).enumerate() {
            let changed = |tensor: &TensorReport| tensor.not_finite.as_ref()?.changed.get(k)?.first;
            let broken = |tensor: &&TensorReport| changed(tensor).is_some();
            let mut broken = self.tensors.iter().filter(broken);
            if let Some(first) = broken.next() {
                let more = more(" and in", broken.count());
                let what = format!("{model} has numbers that are not finite in `{}`{more}", first.name);
                self.warnings.push(format!("{what}: {fate}"));
            }
        }
        let endless = |tensor: &&TensorReport| {
            let mut norms = tensor.experts.iter().chain([&tensor.merged, &tensor.calibrated]);
            tensor.not_finite.is_none() && norms.any(|norm| !norm.is_finite())
        };
        let mut endless = self.tensors.iter().filter(endless);
        if let Some(first) = endless.next() {
            let others = more(" and", endless.count());
            self.warnings.push(format!(
                "task vectors of `{}`{others} are so large that their squares are beyond f32: what follows from their \
                 lengths, calibration too, is not to be relied on there",
                first.name
            ));
        }
        if let Some(how) = self.recovered {
            self.warnings.push(format!("the device failed on the way: its work was done again {}", how.as_str()));
        }
        let mut recovered = self.tensors.iter().filter(|tensor| tensor.recovered.is_some());
        if let Some(first) = recovered.next() {
            let (all, how) = (plural(1 + recovered.count(), "tensor"), first.recovered.map_or("", Recovered::as_str));
            self.warnings.push(format!("the device failed at {all}: `{}` was computed again {how}", first.name));
        }
        let large = self.tensors.iter().filter_map(|tensor| Some((tensor.too_large?, &tensor.name)));
        if let Some((bytes, name)) = large.clone().max() {
            let (count, mb) = (large.count(), bytes.div_ceil(1_000_000));
            let were = if count == 1 { "was" } else { "were" };
            self.warnings.push(format!(
                "{} {were} decomposed on the host, which takes longer: `{name}` would take {mb} MB of device \
                 memory; `--vram` allows more",
                plural(count, "tensor")
            ));
        }
        type Count = fn(&TensorReport) -> u64;
        let stand = if self.non_finite == NonFinite::Base { ", where the base's own stand" } else { "" };
        let kinds: [(&str, Count); 3] = [
            ("NaN", |tensor| tensor.nan),
            ("infinite", |tensor| tensor.infinite),
            ("too large for the output type", |tensor| tensor.overflow),
        ];
        for (kind, count) in kinds {
            let mut hit = self.tensors.iter().filter(|tensor| count(tensor) > 0);
            if let Some(first) = hit.next() {
                let (others, total) = (hit.count(), self.tensors.iter().map(count).sum::<u64>());
                let more = more(" and", others);
                let are = if total == 1 { "result is" } else { "results are" };
                self.warnings.push(format!("{total} {are} {kind}{stand}: in `{}`{more}", first.name));
            }
        }
    }
}

/// What follows the name of the first of several tensors.
fn more(and: &str, others: usize) -> String {
    if others > 0 { format!("{and} {}", plural(others, "more tensor")) } else { String::new() }
}
