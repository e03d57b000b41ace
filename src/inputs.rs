//! What feature space takes besides the models: the network, and samples for every expert.

use std::collections::HashSet;
use std::path::Path;

use crate::calibrate::candidate::Candidate;
use crate::checkpoint::Checkpoint;
use crate::data;
use crate::error::{Error, Result};
use crate::features::Sets;
use crate::figures::plural;
use crate::forward::{self, Network};
use crate::plan::{Action, Plan};
use crate::recipe::{Recipe, Space, resolve};
use crate::report::DataReport;

/// Network and samples.
pub struct Features {
    /// The base's network.
    pub network: Network,
    /// The samples.
    pub sets: Sets,
}

impl Features {
    /// Reads `config.json` of `base` and the samples of every expert; `experts` holds their places in the recipe.
    ///
    /// # Errors
    /// An architecture that is not known, an expert without samples, samples that the network cannot take.
    pub fn open(recipe: &Recipe, experts: &[(usize, usize)], base: &Checkpoint, folder: Option<&Path>) -> Result<Self> {
        let network = forward::network(base)?;
        let (mut names, mut sets, mut of) = (Vec::new(), Vec::new(), Vec::new());
        for &(model, _) in experts {
            let Some(name) = recipe.data_of(model) else {
                let what = format!("`{}` calibration needs samples", recipe.calibrate.space);
                let what = match names.is_empty() {
                    true => what,
                    false => format!("{what}, and `{}` has none", recipe.models[model].model),
                };
                return Err(Error::usage(what)
                    .hint("give a few, unlabelled: `--data PATH`, once for all experts or once for each in their order")
                    .hint("weight-space calibration needs no data: `--calibrate wsc`"));
            };
            let set = names.iter().position(|known| *known == name);
            of.push(set.unwrap_or(names.len()));
            if set.is_none() {
                let path = resolve(name, folder);
                sets.push(data::load(&path, &network.wants, base, Some(recipe.calibrate.samples))?);
                names.push(name);
            }
        }
        Ok(Self { network, sets: Sets { sets, of } })
    }

    /// The sets, for the report.
    pub fn data(&self) -> Vec<DataReport> {
        let report = |set: &data::Samples| DataReport { name: set.name.clone(), samples: set.samples.len() };
        self.sets.sets.iter().map(report).collect()
    }

    /// Most bytes of activations of the pass that `space` takes.
    pub fn activation_bytes(&self, space: Space) -> u64 {
        let tracks = if space == Space::Auto { Candidate::all().len() + self.sets.of.len() } else { 1 };
        self.sets.activation_bytes(&self.network, tracks as u64)
    }

    /// What was left out of the samples or cut short, and what of the merge the forward pass does not reach.
    pub fn warnings(&self, plan: &Plan) -> Vec<String> {
        let mut warnings: Vec<String> = self.sets.sets.iter().flat_map(|set| set.warnings.clone()).collect();
        let leaves = &self.network.leaves;
        let names: HashSet<&String> = leaves
            .iter()
            .flat_map(|leaf| [Some(&leaf.weight), leaf.bias.as_ref(), leaf.copy.as_ref()])
            .flatten()
            .collect();
        let merged = plan.tensors.iter().filter(|tensor| tensor.action == Action::Merge);
        let mut beyond = merged.filter(|tensor| !names.contains(&tensor.name));
        if let Some(first) = beyond.next() {
            let count = 1 + beyond.count();
            let (take, them) = if count == 1 { ("takes", "it") } else { ("take", "them") };
            let what = format!("{} {take} no part in the forward pass", plural(count, "merged tensor"));
            warnings.push(format!("{what}, `{}` first: features say nothing about {them}", first.name));
        }
        warnings
    }
}
