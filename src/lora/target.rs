//! Which tensors of a merge go into an adapter, and under which names.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::adapter::{Form, Pair};
use super::file;
use super::layer::{Layer, Touch};
use super::warn::same_base;
use crate::checkpoint::text::{list, shown};
use crate::checkpoint::{Dtype, OutTensor};
use crate::error::{Error, Result};
use crate::methods::{Combine, Sparsify};
use crate::plan::{Action, Plan, Tensor};

/// Modules that are embeddings, where nothing but the name tells.
const EMBEDDINGS: [&str; 9] = [
    "embed_tokens",
    "wte",
    "wpe",
    "word_embeddings",
    "position_embeddings",
    "token_type_embeddings",
    "tok_embeddings",
    "embed_in",
    "embed_positions",
];

/// Modules of GPT-2, whose weights are stored as `[in, out]`.
const TURNED: [&str; 4] = ["c_attn", "c_proj", "c_fc", "q_attn"];

/// A tensor that becomes a pair of factors.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its place in the plan.
    pub tensor: usize,
    /// The module that it is the weight of.
    pub module: String,
    /// Names of A, of B, and of α where it is written.
    pub names: (String, String, Option<String>),
    /// Dimensions of the weight.
    pub shape: Vec<u64>,
    /// Whether B·A is the transposed weight: embeddings, and weights stored as `[in, out]`.
    pub turned: bool,
    /// The largest rank that ΔW can have or may get.
    pub most: usize,
}

/// An adapter to be written.
#[derive(Clone, Debug)]
pub struct Out {
    /// How it is named.
    pub form: Form,
    /// Element type of the factors.
    pub dtype: Dtype,
    /// What becomes factors.
    pub targets: Vec<Target>,
    /// Places in the plan of tensors that may change and have no factors.
    pub others: Vec<usize>,
}

impl Target {
    /// Rows and columns of the weight as a matrix.
    pub fn matrix(&self) -> (usize, usize) {
        let rows = self.shape[0] as usize;
        (rows, self.shape[1..].iter().product::<u64>() as usize)
    }

    /// The tensors that it becomes, at rank `rank`: A, B and perhaps α.
    pub fn tensors(&self, rank: usize, dtype: Dtype) -> Vec<OutTensor> {
        let rank = rank as u64;
        let (mut down, mut up) = (vec![rank], vec![self.shape[0], rank]);
        if self.turned {
            down.push(self.shape[0]);
            up[0] = self.shape[1];
        } else {
            down.extend(&self.shape[1..]);
            up.extend(self.shape[2..].iter().map(|_| 1));
        }
        let (a, b, alpha) = &self.names;
        let mut tensors =
            vec![OutTensor { name: a.clone(), dtype, shape: down }, OutTensor { name: b.clone(), dtype, shape: up }];
        tensors.extend(alpha.iter().map(|name| OutTensor { name: name.clone(), dtype, shape: Vec::new() }));
        tensors
    }
}

impl Out {
    /// What of `plan` an adapter of at most rank `rank` can hold; without it, of the sum of the experts' ranks. `layers`
    /// are the adapters among the checkpoints, `model_type` is what the base's configuration says, and with `zeros` there is no base.
    ///
    /// # Errors
    /// Nothing to write, a module that cannot be named.
    pub fn new(
        plan: &Plan,
        layers: &[Option<Arc<Layer>>],
        rank: Option<usize>,
        dtype: Dtype,
        model_type: Option<&str>,
        zeros: bool,
    ) -> Result<Self> {
        let first = layers.iter().flatten().next();
        let form = first.map_or(Form::Peft, |layer| layer.adapter.form);
        let mut out = Self { form, dtype, targets: Vec::new(), others: Vec::new() };
        for (place, tensor) in plan.tensors.iter().enumerate().filter(|(_, tensor)| tensor.action == Action::Merge) {
            let mut seen = Seen::default();
            for source in &tensor.sources[1..=tensor.experts()] {
                seen.look(layers[source.checkpoint].as_deref(), source.tensor);
            }
            if !seen.touched && !keeps_base(plan, tensor, zeros) {
                continue;
            }
            let module = match &tensor.name {
                name if tensor.shape.len() >= 2 => name.strip_suffix(".weight").map(str::to_owned),
                _ => None,
            };
            let Some(module) = module else {
                out.others.push(place);
                continue;
            };
            let (rows, cols) = (tensor.shape[0], tensor.elements / tensor.shape[0]);
            let mut most = usize::try_from(rows.min(cols)).unwrap_or(usize::MAX);
            if seen.exact && is_linear(plan, tensor, zeros) || rank.is_none() {
                most = most.min(seen.ranks as usize);
            }
            most = most.min(rank.unwrap_or(usize::MAX));
            let module = seen.module.clone().unwrap_or(module);
            let (names, turned) = match form {
                Form::Peft => peft(&module, &seen, tensor, model_type),
                Form::File => (file_names(first.expect("a form of adapters"), &seen)?, false),
            };
            out.targets.push(Target { tensor: place, module, names, shape: tensor.shape.clone(), turned, most });
        }
        if out.targets.is_empty() && !out.others.is_empty() {
            let names = list(out.others.iter().map(|place| plan.tensors[*place].name.as_str()), 4);
            return Err(Error::input(format!("an adapter holds matrices only, and the merge changes {names}"))
                .hint("nothing that it changes can be held by an adapter: leave `--lora-out` out"));
        }
        if out.targets.is_empty() {
            return Err(Error::input("no matrix is changed: there is nothing that an adapter could hold")
                .hint("leave `--lora-out` out to get a whole model"));
        }
        Ok(out)
    }

    /// Name of the file with the factors.
    pub fn file(&self) -> &'static str {
        match self.form {
            Form::Peft => "adapter_model.safetensors",
            Form::File => "pytorch_lora_weights.safetensors",
        }
    }
}

/// Whether τ_m holds a share of the base: where weights of models do not sum to one.
fn keeps_base(plan: &Plan, tensor: &Tensor, zeros: bool) -> bool {
    let settings = &tensor.settings;
    let divided = settings.normalize && settings.weights.iter().sum::<f64>().abs() > 1e-6;
    plan.method.combine == Combine::Models && !zeros && !divided
}

/// Whether τ_m is a weighted sum of the experts' task vectors alone, so that its rank is no more than the sum of theirs.
fn is_linear(plan: &Plan, tensor: &Tensor, zeros: bool) -> bool {
    plan.method.sparsify == Sparsify::Keep
        && matches!(plan.method.combine, Combine::TaskVectors | Combine::Models)
        && !keeps_base(plan, tensor, zeros)
}

/// What the experts do to a tensor.
#[derive(Default)]
struct Seen<'a> {
    touched: bool,
    /// The sum of ranks, and whether nothing but factors changes the tensor.
    ranks: u64,
    exact: bool,
    module: Option<String>,
    pairs: Vec<(&'a Layer, &'a Pair)>,
    transposed: Option<bool>,
    looked: bool,
}

impl<'a> Seen<'a> {
    fn look(&mut self, layer: Option<&'a Layer>, tensor: usize) {
        if !std::mem::replace(&mut self.looked, true) {
            self.exact = true;
        }
        let Some(layer) = layer else {
            (self.touched, self.exact) = (true, false);
            return;
        };
        match layer.touch(tensor) {
            Touch::None => {}
            Touch::Whole(own) => {
                (self.touched, self.exact) = (true, false);
                let found = layer.adapter.whole.iter().find(|(_, place)| *place == own);
                let name = found.and_then(|(name, _)| name.strip_suffix(".weight")).map(str::to_owned);
                self.module = self.module.take().or(name);
            }
            Touch::Pair { pair, transposed, base } => {
                let pair = &layer.adapter.pairs[pair];
                self.touched = true;
                self.ranks += pair.rank;
                self.exact &= base.is_none();
                self.module = self.module.take().or(Some(pair.module.clone()));
                self.transposed = self.transposed.or(Some(transposed));
                self.pairs.push((layer, pair));
            }
        }
    }
}

/// PEFT's names, and whether B·A is transposed.
fn peft(
    module: &str,
    seen: &Seen<'_>,
    tensor: &Tensor,
    model: Option<&str>,
) -> ((String, String, Option<String>), bool) {
    let last = module.rsplit('.').next().unwrap_or(module);
    let flat = tensor.shape.len() == 2;
    let embedding = match seen.pairs.first() {
        Some((_, pair)) => pair.embedding,
        None => flat && EMBEDDINGS.contains(&last),
    };
    let turned = seen.transposed.unwrap_or(flat && model == Some("gpt2") && TURNED.contains(&last));
    let at = format!("base_model.model.{module}");
    let names = match embedding {
        true => (format!("{at}.lora_embedding_A"), format!("{at}.lora_embedding_B"), None),
        false => (format!("{at}.lora_A.weight"), format!("{at}.lora_B.weight"), None),
    };
    (names, embedding || turned)
}

/// The names that the first model has for a module, or would have.
fn file_names(first: &Arc<Layer>, seen: &Seen<'_>) -> Result<(String, String, Option<String>)> {
    let (owner, pair) = seen.pairs.first().expect("zeros are changed by pairs alone");
    let key = &pair.key;
    let spelled = |adapter: &super::Adapter, pair: &Pair| {
        let name = |place: usize| adapter.raw.tensors()[place].name.clone();
        let alpha = format!("{}.alpha", pair.module);
        let has = adapter.raw.get(&alpha).is_some() || file::is_kohya(&pair.module);
        (name(pair.down), name(pair.up), has.then_some(alpha))
    };
    if let Some(own) = first.adapter.pairs.iter().find(|own| own.key == *key) {
        return Ok(spelled(&first.adapter, own));
    }
    let kohya = |pair: &Pair| file::is_kohya(&pair.module);
    if first.adapter.pairs.iter().any(kohya) {
        let wide = first.adapter.pairs.iter().any(|pair| pair.module.starts_with("lora_te1_"));
        let module = if kohya(pair) { pair.module.clone() } else { file::kohya(key, wide) };
        let (down, up) = (format!("{module}.lora_down.weight"), format!("{module}.lora_up.weight"));
        return Ok((down, up, Some(format!("{module}.alpha"))));
    }
    if kohya(pair) {
        let (at, first) = (shown(owner.adapter.raw.name()), shown(first.adapter.raw.name()));
        let what = format!("`{first}` has no module like `{}` of `{at}`", shown(&pair.module));
        return Err(Error::input(format!("{what}, and its naming cannot be derived"))
            .hint("name the model with kohya's names first: the result takes its spelling"));
    }
    Ok(spelled(&owner.adapter, pair))
}

/// `adapter_config.json` of the targets `written`, each with its rank. `plan` tells the base's other modules, if there is a
/// base.
pub fn config(
    out: &Out,
    written: &[(usize, usize)],
    layers: &[Option<Arc<Layer>>],
    base: Option<&str>,
    plan: Option<&Plan>,
) -> Value {
    let configs: Vec<&Value> =
        layers.iter().flatten().filter_map(|layer| Some(&layer.adapter.config.as_ref()?.document)).collect();
    let carried = |key: &str| configs.first().and_then(|config| config.get(key)).cloned().unwrap_or(Value::Null);
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    written.iter().for_each(|(_, rank)| *counts.entry(*rank).or_default() += 1);
    let usual = counts.iter().max_by_key(|(_, count)| **count).map_or(1, |(rank, _)| *rank);
    let pattern: Map<String, Value> = written
        .iter()
        .filter(|(_, rank)| *rank != usual)
        .map(|(target, rank)| (out.targets[*target].module.clone(), json!(rank)))
        .collect();
    let modules: Vec<&str> = written.iter().map(|(target, _)| out.targets[*target].module.as_str()).collect();
    fn named(config: &Value) -> &str {
        config.get("base_model_name_or_path").and_then(Value::as_str).unwrap_or_default()
    }
    // A base that was given is the one that the result belongs to, unless an adapter knows it by a fuller name.
    let of = configs.iter().find(|config| match base {
        Some(base) => same_base(named(config), base),
        None => !named(config).is_empty(),
    });
    // Without a base, orientations are what the adapters say.
    let turned = match plan {
        None => configs.iter().all(|config| config.get("fan_in_fan_out") == Some(&Value::Bool(true))),
        Some(_) => written.iter().any(|(target, _)| {
            let target = &out.targets[*target];
            target.turned && !target.names.0.ends_with("lora_embedding_A")
        }),
    };
    json!({
        "peft_type": "LORA",
        "task_type": carried("task_type"),
        "auto_mapping": carried("auto_mapping"),
        "base_model_name_or_path": of.map(|config| named(config)).or(base),
        "revision": of.and_then(|config| config.get("revision")),
        "inference_mode": true,
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": target_modules(&modules, &configs, out, written, plan),
        "fan_in_fan_out": turned,
        "use_rslora": false,
        "use_dora": false,
        "bias": "none",
        "lora_dropout": 0.0,
        "init_lora_weights": true,
        "modules_to_save": null,
    })
}

/// Last parts of the modules' names if they name no other module, else the whole names.
fn target_modules(
    modules: &[&str],
    configs: &[&Value],
    out: &Out,
    written: &[(usize, usize)],
    plan: Option<&Plan>,
) -> Vec<String> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let mut short: Vec<String> = Vec::new();
    modules.iter().map(|module| last(module)).for_each(|name| {
        if !short.contains(&name) {
            short.push(name);
        }
    });
    let enough = match plan {
        Some(plan) => {
            let ours: HashSet<usize> = written.iter().map(|(target, _)| out.targets[*target].tensor).collect();
            plan.tensors.iter().enumerate().all(|(place, tensor)| {
                let module = tensor.name.strip_suffix(".weight").filter(|_| tensor.shape.len() >= 2);
                ours.contains(&place) || module.is_none_or(|module| !short.contains(&last(module)))
            })
        }
        // Without a base, those that the adapters themselves were made with.
        None => {
            let known: Option<Vec<&str>> = configs
                .iter()
                .filter_map(|config| config.get("target_modules")?.as_array())
                .flatten()
                .map(Value::as_str)
                .collect();
            let known = known.unwrap_or_default();
            short.iter().all(|name| known.contains(&name.as_str()))
        }
    };
    if enough { short } else { modules.iter().map(|module| (*module).to_owned()).collect() }
}
