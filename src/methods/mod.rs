//! Merge methods, each a row of a table: how it sparsifies the task vectors, and how it combines them.
//!
//! A new method is one more row of [`METHODS`]; new arithmetic is a new arm of [`Sparsify`] or [`Combine`] and a kernel.

pub mod combine;
pub mod gram;
pub mod merged;
pub mod sparsify;
pub mod sphere;
mod table;
pub mod whole;

pub use table::{GIVEN, METHODS};

use crate::decompose;
use crate::error::{Error, Result, nearest};
use crate::recipe::Recipe;

/// What is done to each task vector before they are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sparsify {
    /// Nothing.
    Keep,
    /// The ⌊density·n⌋ largest magnitudes of each tensor stay (TIES).
    Largest,
    /// The ⌊density·n⌋ that come after the ⌊gamma·n⌋ largest stay (breadcrumbs).
    Middle,
    /// Each element stays with probability `density` (DARE).
    Random,
    /// The same, with a probability that grows with the rank of its magnitude in its row (DELLA).
    Ranked,
    /// The share `select_topk` of the entries stays, in all experts, where these differ most (SCE).
    Varying,
}

/// How task vectors become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Combine {
    /// λ Σ w_k τ_k.
    TaskVectors,
    /// λ Σ w_k τ_k / K: what methods for matrices do with everything else.
    Mean,
    /// Σ w_k θ_k, which needs no base.
    Models,
    /// Sign election and disjoint merge of the weighted task vectors (TIES).
    Elect,
    /// The same where experts differ most, weighted by their energies there (SCE).
    Energies,
    /// λ Σ w_k τ_k where enough experts hold a large share of it (Consensus TA).
    Consensus,
    /// Spherical interpolation between the base and one model.
    Slerp,
    /// A linear combination whose coefficients follow from lengths and angles.
    Sphere(Sphere),
    /// The task vector, no entry larger than `t`.
    Near,
    /// One model times a scale.
    Scale,
    /// From the singular vectors of matrices.
    Decompose(decompose::Rule),
}

/// Which combination lengths and angles ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sphere {
    /// The mean, drawn towards the base by the angle between experts (Model Stock).
    Stock,
    /// Spherical interpolation of two, as whole tensors, by rows or by columns.
    Pair,
    /// The same, always by rows.
    Rows,
    /// Spherical interpolation of several, about their mean direction.
    Several,
    /// The Riemannian mean on the sphere.
    Karcher,
}

/// What a method merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Differences from the base; the base itself, if it is listed, takes no part.
    TaskVectors,
    /// The models as they are.
    Models,
    /// Differences where there is a base, else models.
    TaskVectorsOrModels,
}

/// What a method needs of `base_model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Task vectors are differences from it.
    Required,
    /// Without it, the first model serves for names, configuration and tokenizer.
    Optional,
}

/// A merge method.
#[derive(Debug)]
pub struct Method {
    /// Name in recipes and on the command line.
    pub name: &'static str,
    /// One line of mathematics.
    pub formula: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
    /// First step.
    pub sparsify: Sparsify,
    /// Second step.
    pub combine: Combine,
    /// What is merged.
    pub over: Over,
    /// Need for a base model.
    pub base: Base,
    /// The only number of experts it can take, if there is one.
    pub experts: Option<usize>,
    /// Whether weights are divided by their sum if the recipe does not say.
    pub normalize: bool,
    /// Rescaling after sparsification if the recipe does not say.
    pub rescale: Rescale,
    /// Parameters it uses, and what they are where the recipe is silent.
    pub params: &'static [(&'static str, &'static str)],
}

/// How a sparsified task vector gets its size back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rescale {
    /// It does not.
    None,
    /// By ‖τ‖₁ / ‖m ∘ τ‖₁, as mergekit does.
    L1,
    /// By 1 / density, as in the paper of DARE.
    InverseDensity,
}

/// A method's parameters for one tensor.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Weight of each expert; 1 where the recipe is silent.
    pub weights: Vec<f64>,
    /// Density of each expert; 1 where the recipe is silent.
    pub densities: Vec<f64>,
    /// Half of the range of densities in a row, of each expert (DELLA).
    pub epsilons: Vec<f64>,
    /// Share of the largest entries that go, of each expert (breadcrumbs).
    pub gammas: Vec<f64>,
    /// Whether weights are divided by their sum.
    pub normalize: bool,
    /// Scale of the merged task vector.
    pub lambda: f64,
    /// Rescaling after sparsification.
    pub rescale: Rescale,
    /// Position between two ends, or the most that an entry may move (nearswap).
    pub t: f64,
    /// Scale of passthrough.
    pub scale: f64,
    /// Share of the entries, by their variance over the experts, that are merged (SCE).
    pub select_topk: f64,
    /// What an expert's share must exceed to be a vote (Consensus TA), and how many votes it takes.
    pub votes: (f64, u32),
    /// Whether rows are seen apart (Model Stock), or whole tensors (nuslerp).
    pub filter_wise: bool,
    /// See [`Settings::filter_wise`].
    pub flatten: bool,
    /// Whether vectors run along the first dimension and not along the last (nuslerp).
    pub columns: bool,
    /// Most steps, and the length of a step that ends the search (Karcher).
    pub steps: (u32, f64),
    /// Whether weights are divided by their sum (multislerp).
    pub normalize_weights: bool,
    /// A length that counts as zero (multislerp).
    pub eps: f64,
    /// Share of the singular space that is common (Iso-CTS).
    pub common_fraction: f64,
    /// Whether embeddings and output heads are matrices like others.
    pub embeddings: bool,
}

impl Method {
    /// The method called `name`.
    pub fn find(name: &str) -> Result<&'static Self> {
        METHODS.iter().find(|method| method.name == name).ok_or_else(|| {
            let error = Error::usage(format!("unknown merge method `{name}`"));
            let all = METHODS.iter().map(|method| method.name);
            match nearest(name, all.clone()) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error.hint(format!("the methods are {}", all.collect::<Vec<_>>().join(", "))),
            }
        })
    }

    /// Whether it uses the parameter `name`.
    pub fn takes(&self, name: &str) -> bool {
        self.params.iter().any(|(param, _)| *param == name)
    }

    /// Whether it merges differences from the base of `recipe`.
    pub fn merges_task_vectors(&self, recipe: &Recipe) -> bool {
        match self.over {
            Over::TaskVectors => true,
            Over::Models => false,
            Over::TaskVectorsOrModels => recipe.base.is_some(),
        }
    }

    /// Checks what can be known without a model: base, number of experts, parameters.
    pub fn check(&self, recipe: &Recipe, experts: &[usize]) -> Result<()> {
        if self.base == Base::Required && recipe.base.is_none() {
            return Err(Error::usage(format!("`{}` needs a base model", self.name))
                .hint("add `base_model:` to the recipe, or `--base PATH`"));
        }
        if let Some(only) = self.experts.filter(|&only| only != experts.len()) {
            let besides = if self.merges_task_vectors(recipe) { " besides the base" } else { "" };
            let models = if only == 1 { "model" } else { "models" };
            return Err(Error::usage(format!(
                "`{}` takes {only} {models}{besides}, {} given",
                self.name,
                experts.len()
            ))
            .hint(format!("give {only} as `--model PATH`, or take another method: `magic methods` lists them")));
        }
        if experts.is_empty() {
            return Err(Error::usage("no model to merge besides the base").hint("add models, or `--model PATH`"));
        }
        for (key, _) in recipe.given() {
            if !self.takes(key) {
                let own: Vec<&str> = self.params.iter().map(|(name, _)| *name).collect();
                return Err(Error::usage(format!("`{}` does not use the parameter `{key}`", self.name))
                    .hint(format!("its parameters are {}", own.join(", "))));
            }
        }
        Ok(())
    }

    /// The parameters for `tensor`, which lies at `depth` (0 to 1). `experts` are places in the recipe's models.
    pub fn settings(&self, recipe: &Recipe, experts: &[usize], tensor: &str, depth: f64) -> Result<Settings> {
        let per_expert = |key: &str, default: f64| {
            experts
                .iter()
                .map(|&model| Ok(recipe.number(key, Some(model), tensor, depth)?.unwrap_or(default)))
                .collect::<Result<Vec<_>>>()
        };
        let global =
            |key: &str, default: f64| Ok::<_, Error>(recipe.number(key, None, tensor, depth)?.unwrap_or(default));
        let flag = |key: &str, default: bool| Ok::<_, Error>(recipe.flag(key, None, tensor)?.unwrap_or(default));
        let model = experts.first().copied();
        let t = match recipe.number("t", None, tensor, depth)? {
            None if matches!(self.combine, Combine::Slerp | Combine::Near) => {
                // A place between two models, or the most that a weight may move.
                let usual = if self.combine == Combine::Near { "0.001" } else { "0.5" };
                return Err(Error::usage(format!("`{}` needs the parameter `t` for `{tensor}`", self.name))
                    .hint(format!("add `t: {usual}` under `parameters`, or `--param t={usual}`")));
            }
            t => t.unwrap_or(0.5),
        };
        let rescale = match recipe.text("rescale", None, tensor)?.as_deref() {
            None => self.rescale,
            Some("false") => Rescale::None,
            Some("inverse_density") => Rescale::InverseDensity,
            Some(_) => Rescale::L1,
        };
        let settings = Settings {
            weights: per_expert("weight", 1.0)?,
            densities: per_expert("density", 1.0)?,
            epsilons: per_expert("epsilon", 0.15)?,
            gammas: per_expert("gamma", 0.01)?,
            normalize: flag("normalize", self.normalize)?,
            lambda: global("lambda", 1.0)?,
            rescale,
            t,
            scale: recipe.number("scale", model, tensor, depth)?.unwrap_or(1.0),
            select_topk: global("select_topk", 1.0)?,
            votes: (global("mask_lambda", 0.4)?, global("votes", 2.0)? as u32),
            filter_wise: flag("filter_wise", false)?,
            flatten: flag("nuslerp_flatten", true)?,
            columns: flag("nuslerp_row_wise", false)?,
            steps: (global("max_iter", 10.0)? as u32, global("tol", 1e-5)?),
            normalize_weights: flag("normalize_weights", true)?,
            eps: global("eps", 1e-8)?,
            common_fraction: global("common_fraction", 0.8)?,
            embeddings: flag("embeddings", false)?,
        };
        self.check_densities(&settings, tensor)?;
        if self.combine == Combine::Near && settings.t < 0.0 {
            return Err(Error::usage(format!(
                "`t` is {} for `{tensor}`, below 0: no entry can move less than not at all",
                settings.t
            ))
            .hint("it is the most that an entry moves, such as `--param t=0.001`"));
        }
        if settings.columns && settings.flatten {
            return Err(Error::usage("`nuslerp_row_wise` does nothing while tensors are seen as a whole")
                .hint("add `nuslerp_flatten: false`"));
        }
        Ok(settings)
    }

    /// DELLA's probabilities must be such.
    fn check_densities(&self, settings: &Settings, tensor: &str) -> Result<()> {
        let pairs = settings.densities.iter().zip(&settings.epsilons);
        let partial = |density: f64| density > 0.0 && density < 1.0;
        match pairs.into_iter().find(|(d, e)| partial(**d) && (**d - **e < 0.0 || **d + **e > 1.0)) {
            Some((density, epsilon)) if self.sparsify == Sparsify::Ranked => {
                let (low, high) = (density - epsilon, density + epsilon);
                let what = format!("`density` {density} and `epsilon` {epsilon} for `{tensor}`");
                Err(Error::usage(format!("{what} give probabilities from {low:.3} to {high:.3}"))
                    .hint(format!("for this density `epsilon` may be {:.3} at most", density.min(1.0 - density))))
            }
            _ => Ok(()),
        }
    }

    /// What becomes of a tensor of this name and shape: methods for matrices take the mean of all others.
    pub fn combine(&self, tensor: &str, shape: &[u64], settings: &Settings) -> Combine {
        match self.combine {
            Combine::Decompose(_) if shape.len() != 2 || !settings.embeddings && is_embedding(tensor) => Combine::Mean,
            Combine::Decompose(decompose::Rule::IsoCts { .. }) => {
                Combine::Decompose(decompose::Rule::IsoCts { common_fraction: settings.common_fraction })
            }
            combine => combine,
        }
    }
}

/// True for embeddings of tokens and positions, and for output heads.
fn is_embedding(tensor: &str) -> bool {
    const PARTS: &[&str] = &["embed", "wte", "wpe", "lm_head", "classifier", "score", "pre_classifier", "qa_outputs"];
    const LAST: &[&str] = &["head", "output", "proj", "text_projection", "visual_projection", "fc"];
    let stem = tensor.strip_suffix(".weight").unwrap_or(tensor);
    // A projection or head that belongs to no layer: `head.weight`, `visual.proj`, `text_projection.weight`.
    let layered = tensor.split('.').any(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let last = stem.rsplit('.').next().unwrap_or(stem);
    tensor.split('.').any(|part| PARTS.iter().any(|word| part.contains(word))) || !layered && LAST.contains(&last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embeddings_and_heads_by_their_names() {
        for name in [
            "model.embed_tokens.weight",
            "bert.embeddings.position_embeddings.weight",
            "transformer.wte.weight",
            "model.visual.positional_embedding",
            "lm_head.weight",
            "classifier.weight",
            "visual.proj",
            "text_projection.weight",
        ] {
            assert!(is_embedding(name), "{name}");
        }
        for name in [
            "model.layers.0.self_attn.o_proj.weight",
            "vit.encoder.layer.3.output.dense.weight",
            "model.visual.transformer.resblocks.0.attn.in_proj_weight",
            "h.2.mlp.c_proj.weight",
            "bert.pooler.dense.weight",
        ] {
            assert!(!is_embedding(name), "{name}");
        }
    }

    #[test]
    fn rows_of_the_table_name_known_parameters_once() {
        for method in METHODS {
            for (i, (name, _)) in method.params.iter().enumerate() {
                assert!(crate::recipe::Param::find(name).is_some(), "`{}`: {name}", method.name);
                assert!(method.params[..i].iter().all(|(other, _)| other != name), "`{}`: {name}", method.name);
            }
        }
    }
}
