//! Merge methods, each a row of a table: how it sparsifies the task vectors, and how it combines them.
//!
//! A new method is one more row of [`METHODS`]; new arithmetic is a new arm of [`Sparsify`] or [`Combine`] and a kernel.

pub mod combine;
pub mod merged;
pub mod sparsify;

use crate::error::{Error, Result, nearest};
use crate::recipe::Recipe;

/// What is done to each task vector before they are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sparsify {
    /// Nothing.
    Keep,
    /// The ⌊density·n⌋ largest magnitudes of each tensor stay (TIES).
    Largest,
    /// Each element stays with probability `density` (DARE).
    Random,
}

/// How task vectors become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// λ Σ w_k τ_k.
    TaskVectors,
    /// Σ w_k θ_k, which needs no base.
    Models,
    /// Sign election and disjoint merge of the weighted task vectors (TIES).
    Elect,
    /// Spherical interpolation between the base and one model.
    Slerp,
    /// One model times a scale.
    Scale,
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
    /// Whether weights are divided by their sum if the recipe does not say.
    pub normalize: bool,
    /// Need for a base model.
    pub base: Base,
    /// The only number of experts it can take, if there is one.
    pub experts: Option<usize>,
    /// Parameters it uses.
    pub params: &'static [&'static str],
}

/// All methods.
pub static METHODS: &[Method] = &[
    Method {
        name: "linear",
        formula: "θ = Σ w_k θ_k / Σ w_k",
        paper: "Model soups, arXiv 2203.05482",
        sparsify: Sparsify::Keep,
        combine: Combine::Models,
        normalize: true,
        base: Base::Optional,
        experts: None,
        params: &["weight", "normalize"],
    },
    Method {
        name: "task_arithmetic",
        formula: "θ = θ_0 + λ Σ w_k τ_k",
        paper: "Editing models with task arithmetic, arXiv 2212.04089",
        sparsify: Sparsify::Keep,
        combine: Combine::TaskVectors,
        normalize: false,
        base: Base::Required,
        experts: None,
        params: &["weight", "normalize", "lambda"],
    },
    Method {
        name: "ties",
        formula: "θ = θ_0 + λ Σ_{sign agrees} w_k trim(τ_k) / Σ_{sign agrees} w_k",
        paper: "TIES-Merging, arXiv 2306.01708",
        sparsify: Sparsify::Largest,
        combine: Combine::Elect,
        normalize: true,
        base: Base::Required,
        experts: None,
        params: &["weight", "density", "normalize", "lambda", "rescale"],
    },
    Method {
        name: "dare_linear",
        formula: "θ = θ_0 + λ Σ w_k s_k (m_k ∘ τ_k), m_k random",
        paper: "DARE, arXiv 2311.03099",
        sparsify: Sparsify::Random,
        combine: Combine::TaskVectors,
        normalize: false,
        base: Base::Required,
        experts: None,
        params: &["weight", "density", "normalize", "lambda", "rescale"],
    },
    Method {
        name: "dare_ties",
        formula: "θ = θ_0 + λ Σ_{sign agrees} w_k s_k (m_k ∘ τ_k), m_k random",
        paper: "DARE, arXiv 2311.03099, and TIES-Merging, arXiv 2306.01708",
        sparsify: Sparsify::Random,
        combine: Combine::Elect,
        normalize: false,
        base: Base::Required,
        experts: None,
        params: &["weight", "density", "normalize", "lambda", "rescale"],
    },
    Method {
        name: "slerp",
        formula: "θ = sin((1−t)Ω)/sin Ω · θ_0 + sin(tΩ)/sin Ω · θ_1, Ω = ∠(θ_0, θ_1)",
        paper: "Shoemake, SIGGRAPH 1985",
        sparsify: Sparsify::Keep,
        combine: Combine::Slerp,
        normalize: false,
        base: Base::Required,
        experts: Some(1),
        params: &["t"],
    },
    Method {
        name: "passthrough",
        formula: "θ = s θ_1",
        paper: "mergekit",
        sparsify: Sparsify::Keep,
        combine: Combine::Scale,
        normalize: false,
        base: Base::Optional,
        experts: Some(1),
        params: &["scale"],
    },
];

/// How a sparsified task vector gets its size back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rescale {
    /// It does not.
    None,
    /// By ‖τ‖₁ / ‖m ∘ τ‖₁, as mergekit does.
    L1,
    /// By 1 / density, as in the paper.
    InverseDensity,
}

/// A method's parameters for one tensor.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Weight of each expert; 1 where the recipe is silent.
    pub weights: Vec<f64>,
    /// Density of each expert; 1 where the recipe is silent.
    pub densities: Vec<f64>,
    /// Whether weights are divided by their sum.
    pub normalize: bool,
    /// Scale of the merged task vector.
    pub lambda: f64,
    /// Rescaling after sparsification.
    pub rescale: Rescale,
    /// Position of slerp between the base (0) and the model (1).
    pub t: f64,
    /// Scale of passthrough.
    pub scale: f64,
}

/// A merge that was made by another program: its task vector is there, whatever it came from.
pub static GIVEN: Method = Method {
    name: "given",
    formula: "θ_m",
    paper: "",
    sparsify: Sparsify::Keep,
    combine: Combine::TaskVectors,
    normalize: false,
    base: Base::Required,
    experts: None,
    params: &[],
};

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

    /// Checks what can be known without a model: base, number of experts, parameters.
    pub fn check(&self, recipe: &Recipe, experts: &[usize]) -> Result<()> {
        if self.base == Base::Required && recipe.base.is_none() {
            return Err(Error::usage(format!("`{}` needs a base model", self.name))
                .hint("add `base_model:` to the recipe, or `--base PATH`"));
        }
        if let Some(only) = self.experts.filter(|&only| only != experts.len()) {
            let besides = if self.base == Base::Required { " besides the base" } else { "" };
            let models = if only == 1 { "model" } else { "models" };
            return Err(Error::usage(format!(
                "`{}` takes {only} {models}{besides}, {} given",
                self.name,
                experts.len()
            )));
        }
        if experts.is_empty() {
            return Err(Error::usage("no model to merge besides the base").hint("add models, or `--model PATH`"));
        }
        for (key, _) in recipe.given() {
            if !self.params.contains(&key) {
                return Err(Error::usage(format!("`{}` does not use the parameter `{key}`", self.name))
                    .hint(format!("its parameters are {}", self.params.join(", "))));
            }
        }
        Ok(())
    }

    /// The parameters for `tensor`, which lies at `depth` (0 to 1). `experts` are places in the recipe's models.
    pub fn settings(&self, recipe: &Recipe, experts: &[usize], tensor: &str, depth: f64) -> Result<Settings> {
        let per_expert = |key: &str| {
            experts
                .iter()
                .map(|&model| Ok(recipe.number(key, Some(model), tensor, depth)?.unwrap_or(1.0)))
                .collect::<Result<Vec<_>>>()
        };
        let global = |key: &str| recipe.number(key, None, tensor, depth);
        let model = experts.first().copied();
        let t = match (self.combine, global("t")?) {
            (Combine::Slerp, None) => {
                return Err(Error::usage(format!("`slerp` needs the parameter `t` for `{tensor}`"))
                    .hint("add `t: 0.5` under `parameters`, or `--param t=0.5`"));
            }
            (_, t) => t.unwrap_or(0.0),
        };
        let rescale = match recipe.text("rescale", None, tensor)?.as_deref() {
            None if self.sparsify == Sparsify::Random => Rescale::L1,
            None | Some("false") => Rescale::None,
            Some("inverse_density") => Rescale::InverseDensity,
            Some(_) => Rescale::L1,
        };
        Ok(Settings {
            weights: per_expert("weight")?,
            densities: per_expert("density")?,
            normalize: recipe.flag("normalize", None, tensor)?.unwrap_or(self.normalize),
            lambda: global("lambda")?.unwrap_or(1.0),
            rescale,
            t,
            scale: recipe.number("scale", model, tensor, depth)?.unwrap_or(1.0),
        })
    }
}
