//! What a merge did to the task vectors, by part of the network.

use magic_merge::calibrate::feature::CandidateReport;
use magic_merge::fast_gemm::FastReport;
use magic_merge::report::{Report, TensorReport};

use super::tables::{Column, table};
use super::text::{bytes, number, plural};

/// A part of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Projections of attention.
    Attention,
    /// Feed-forward layers.
    Mlp,
    /// Embeddings, of positions and patches too, and output heads.
    Embeddings,
    /// Norms and all else.
    Others,
}

impl Group {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Attention, "attention"),
        (Self::Mlp, "MLP"),
        (Self::Embeddings, "embeddings"),
        (Self::Others, "others"),
    ];

    /// The part that a tensor's name tells. The first list with a matching word decides.
    pub fn of(name: &str) -> Self {
        const NORMS: &[&str] = &["norm", "ln_", ".ln", "ln1", "ln2"];
        const EMBEDDINGS: &[&str] = &["embed", "wte", "wpe", "lm_head", "patch", "shared."];
        const ATTENTION: &[&str] = &["attn", "attention", "q_proj", "k_proj", "v_proj", "o_proj", "qkv"];
        const MLP: &[&str] = &[
            "mlp",
            "ffn",
            "feed_forward",
            "fc1",
            "fc2",
            "c_fc",
            "intermediate",
            "output.dense",
            "relu",
            "gate_proj",
            "up_proj",
            "down_proj",
            "moe",
            "expert",
        ];
        let name = name.to_lowercase();
        let lists =
            [(NORMS, Self::Others), (EMBEDDINGS, Self::Embeddings), (ATTENTION, Self::Attention), (MLP, Self::Mlp)];
        let found = lists.iter().find(|(words, _)| words.iter().any(|word| name.contains(word)));
        found.map_or(Self::Others, |(_, group)| *group)
    }
}

/// Norms of task vectors over several tensors together.
#[derive(Clone, Debug, PartialEq)]
pub struct Norms {
    /// Tensors that were merged.
    pub tensors: usize,
    /// Mean over the experts of their ‖τ‖.
    pub experts: f64,
    /// ‖τ‖ of the merge.
    pub merged: f64,
    /// The same after calibration.
    pub calibrated: f64,
    /// Mean over the calibrated tensors of their mean ξ.
    pub xi: Option<f64>,
}

impl Norms {
    /// Over the merged ones among `tensors`.
    pub fn of<'a>(tensors: impl IntoIterator<Item = &'a TensorReport>) -> Self {
        let tensors: Vec<_> = tensors.into_iter().filter(|tensor| !tensor.experts.is_empty()).collect();
        let norm = |of: &dyn Fn(&TensorReport) -> f64| tensors.iter().map(|t| of(t).powi(2)).sum::<f64>().sqrt();
        let experts = tensors.first().map_or(0, |tensor| tensor.experts.len());
        let xi: Vec<f64> = tensors.iter().filter_map(|tensor| Some(tensor.xi?.mean)).collect();
        Self {
            tensors: tensors.len(),
            experts: (0..experts).map(|k| norm(&|t| t.experts[k])).sum::<f64>() / experts.max(1) as f64,
            merged: norm(&|t| t.merged),
            calibrated: norm(&|t| t.calibrated),
            xi: (!xi.is_empty()).then(|| xi.iter().sum::<f64>() / xi.len() as f64),
        }
    }

    /// ‖τ‖ of the merge in units of the experts' mean, unless that is zero.
    pub fn ratio(&self) -> Option<f64> {
        (self.experts != 0.0).then(|| self.merged / self.experts)
    }

    /// The same after calibration.
    pub fn calibrated_ratio(&self) -> Option<f64> {
        (self.experts != 0.0).then(|| self.calibrated / self.experts)
    }
}

/// The table at the end of a merge.
pub fn norms(report: &Report) -> String {
    let mut columns = vec![
        Column::Left(""),
        Column::Right("tensors"),
        Column::Right("‖τ‖ experts"),
        Column::Right("merged"),
        Column::Right("÷ experts"),
    ];
    let calibrated = report.tensors.iter().any(|tensor| tensor.xi.is_some());
    if calibrated {
        columns.extend([Column::Right("calibrated"), Column::Right("÷ experts"), Column::Right("mean ξ")]);
    }
    let row = |name: &str, norms: &Norms| {
        let mut row = vec![name.to_owned(), norms.tensors.to_string()];
        row.extend([Some(norms.experts), Some(norms.merged), norms.ratio()].map(cell));
        if calibrated {
            row.extend([Some(norms.calibrated), norms.calibrated_ratio(), norms.xi].map(cell));
        }
        row
    };
    let groups = Group::ALL.map(|(group, name)| {
        (name, Norms::of(report.tensors.iter().filter(|tensor| Group::of(&tensor.name) == group)))
    });
    let mut rows: Vec<_> =
        groups.iter().filter(|(_, norms)| norms.tensors > 0).map(|(name, norms)| row(name, norms)).collect();
    rows.push(row("all", &Norms::of(&report.tensors)));
    table(&columns, rows)
}

/// What `auto` tried, if it did: the nearest first.
pub fn candidates(report: &Report) -> String {
    let Some(features) = report.features.as_ref().filter(|features| !features.candidates.is_empty()) else {
        return String::new();
    };
    let columns = [Column::Left("candidate"), Column::Right("distance from the experts"), Column::Left("")];
    let row = |candidate: &CandidateReport| {
        let chosen = if candidate.chosen { "← taken" } else { "" };
        vec![candidate.name.clone(), number(candidate.distance), chosen.to_owned()]
    };
    table(&columns, features.candidates.iter().map(row)) + "\n"
}

/// What an adapter leaves out of the merge.
pub fn adapter(report: &Report) -> String {
    let Some(lora) = &report.lora else { return String::new() };
    let (count, error) = (plural(lora.tensors, "tensor"), number(lora.error));
    let worst = format!("at worst {} in {}", number(lora.worst_error), lora.worst);
    format!("adapter of {count}, rank {} at most: ‖ΔW − BA‖ / ‖ΔW‖ is {error} overall, {worst}\n", lora.rank)
}

/// What products by cooperative matrices erred by, if any were compared.
pub fn fast_gemm(report: Option<&FastReport>) -> String {
    let Some(FastReport { side, products, error, worst_error, worst }) = report else { return String::new() };
    let (count, error, worst_error) = (plural(*products, "product"), number(*error), number(*worst_error));
    let what = format!("{count} by matrices of {side} × {side} in f16, summed in f32");
    format!("{what}: ‖fast − f32‖ / ‖f32‖ is {error} overall, at worst {worst_error} in {worst}\n")
}

/// A number that there may not be.
pub fn cell(x: Option<f64>) -> String {
    x.map_or("–".to_owned(), number)
}

/// The last line of a merge.
pub fn line(report: &Report, out: &str) -> String {
    let moved = report.bytes.read + report.bytes.written;
    let kept = if report.kept > 0 { format!(" ({} of them by an earlier run)", report.kept) } else { String::new() };
    format!(
        "{}{kept}, {} read and {} written in {:.2} s ({:.2} GB/s) on {}: {out}\n",
        plural(report.tensors.len(), "tensor"),
        bytes(report.bytes.read),
        bytes(report.bytes.written),
        report.seconds,
        moved as f64 / 1e9 / report.seconds.max(1e-9),
        report.device,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_told_apart_by_name() {
        let cases = [
            ("model.layers.0.self_attn.q_proj.weight", Group::Attention),
            ("model.layers.0.self_attn.q_norm.weight", Group::Others),
            ("model.layers.0.mlp.down_proj.weight", Group::Mlp),
            ("model.layers.0.block_sparse_moe.experts.1.w1.weight", Group::Mlp),
            ("model.layers.0.post_attention_layernorm.weight", Group::Others),
            ("model.embed_tokens.weight", Group::Embeddings),
            ("lm_head.weight", Group::Embeddings),
            ("transformer.h.3.attn.c_attn.weight", Group::Attention),
            ("transformer.h.3.mlp.c_proj.weight", Group::Mlp),
            ("transformer.wpe.weight", Group::Embeddings),
            ("bert.encoder.layer.1.attention.output.dense.weight", Group::Attention),
            ("bert.encoder.layer.1.output.dense.bias", Group::Mlp),
            ("bert.encoder.layer.1.intermediate.dense.weight", Group::Mlp),
            ("bert.embeddings.LayerNorm.weight", Group::Others),
            ("vit.embeddings.patch_embeddings.projection.weight", Group::Embeddings),
            ("visual.transformer.resblocks.0.attn.in_proj_weight", Group::Attention),
            ("visual.transformer.resblocks.0.ln_1.weight", Group::Others),
            ("classifier.weight", Group::Others),
        ];
        for (name, group) in cases {
            assert_eq!(Group::of(name), group, "{name}");
        }
    }
}
