//! `magic merge` and `magic calibrate`, and of it what `magic plan` takes too.

use std::path::PathBuf;

use magic_merge::recipe::{Calibrate, DTYPES, Fit, Manifold, NonFinite, Norm, Propagate, Quick, Recipe, Space};

use super::shared::{Products, Recovery};
use super::values::{DANGEROUS, method, size, utf8, words};

/// `magic merge`.
#[derive(Debug, clap::Args)]
pub struct Merge {
    /// What is merged, how and where.
    #[command(flatten)]
    pub what: RecipeFlags,
    /// Products.
    #[command(flatten, next_help_heading = "Calibration")]
    pub products: Products,
    /// How it is written.
    #[command(flatten)]
    pub run: RunFlags,
    /// Failures.
    #[command(flatten, next_help_heading = "Output")]
    pub recovery: Recovery,
    /// Write a LoRA adapter of at most this rank instead of a model
    ///
    /// What the merge adds to each matrix is refactored by singular values; the summary and magic.json say what is lost.
    /// Adapters alone need no `--base` for this.
    #[arg(long, value_name = "RANK", help_heading = "Output")]
    pub lora_out: Option<usize>,
    /// Check everything and show the plan, but write nothing
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,
    /// Print the recipe that the flags amount to, and do nothing else
    #[arg(long, conflicts_with = "dry_run", help_heading = "Output")]
    pub emit_recipe: bool,
}

/// Flags that say what is merged, how and where, and a recipe that says the same.
#[derive(Debug, clap::Args)]
pub struct RecipeFlags {
    /// A recipe; without it, --base, --model and --method say what is merged
    #[arg(value_name = "RECIPE.yml")]
    pub recipe: Option<PathBuf>,

    /// The model that the others were fine-tuned from
    #[arg(long, value_name = "PATH", value_parser = utf8(), help_heading = "What is merged")]
    pub base: Option<String>,
    /// A fine-tuned model, with a weight if it has one; once for each
    #[arg(long = "model", value_name = "PATH[=WEIGHT]", value_parser = utf8(), help_heading = "What is merged")]
    pub models: Vec<String>,
    /// How; `magic methods` lists them
    #[arg(long, value_name = "NAME", value_parser = method(), hide_possible_values = true)]
    #[arg(help_heading = "What is merged")]
    pub method: Option<String>,
    /// A parameter of the method, such as density=0.2 or lambda=[0.2,0.5]; once for each
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = utf8(), help_heading = "What is merged")]
    pub params: Vec<String>,
    /// Tensors to copy from the base, such as 'classifier.*'; once for each pattern
    #[arg(long, value_name = "GLOB", value_parser = utf8(), help_heading = "What is merged")]
    pub exclude: Vec<String>,
    /// Seed of the random masks [default: 0]
    #[arg(long, value_name = "N", help_heading = "What is merged")]
    pub seed: Option<u64>,

    /// Calibration.
    #[command(flatten)]
    pub calibration: Calibration,
    /// Output.
    #[command(flatten)]
    pub output: OutputFlags,
}

/// Flags of a calibration.
#[derive(Debug, clap::Args)]
pub struct Calibration {
    /// Where magnitudes are measured and put back
    ///
    /// `wsc`: in weight space, which needs no data; `fsc`: in feature space; `dsc`: in weight space and then in feature
    /// space; `auto`: the best of them and of milder ones, by unlabelled data, which is what we recommend where there is some. What is not given is not calibrated.
    #[arg(long, value_name = "SPACE", value_parser = words(Space::WORDS), help_heading = "Calibration")]
    pub calibrate: Option<String>,
    /// Geometry of the weight-space calibration
    ///
    /// `mixed` (the default) weighs the parts of a row along the experts and across them; `sphere` gives each row, and
    /// `tensor` each tensor, the mean norm of the experts; `spectral` their mean largest singular value.
    #[arg(long, value_name = "NAME", value_parser = words(Manifold::WORDS), help_heading = "Calibration")]
    pub manifold: Option<String>,
    /// Norm of the manifolds sphere and tensor [default: l1]
    #[arg(long, value_name = "NAME", value_parser = words(Norm::WORDS), help_heading = "Calibration")]
    pub norm: Option<String>,
    /// How feature space reads its features [default: magnitude]
    ///
    /// `magnitude` is the paper's: the ratio of their norms. `projection` is the least-squares scale, which counts
    /// direction too and shrinks where experts contradict each other.
    #[arg(long, value_name = "NAME", value_parser = words(Fit::WORDS), help_heading = "Calibration")]
    pub fit: Option<String>,
    /// Unlabelled samples for feature space: once for all experts, or once for each in their order
    ///
    /// A `.safetensors` file with `input_ids` or `pixel_values`, `.txt` or `.jsonl` text (`tokenizer.json` lies with the
    /// base), or a folder of PNG and JPEG images (`preprocessor_config.json` does).
    #[arg(long, value_name = "PATH", value_parser = utf8(), help_heading = "Calibration")]
    pub data: Vec<String>,
    /// Most samples of each set [default: 10]
    #[arg(long, value_name = "N", help_heading = "Calibration")]
    pub samples: Option<usize>,
    /// Hidden states that feature space sees [default: merged]
    ///
    /// `merged`: those of the merge as it is, as in the paper; `calibrated`: those that the calibrated operations before give.
    #[arg(long, value_name = "NAME", value_parser = words(Propagate::WORDS), help_heading = "Calibration")]
    pub propagate: Option<String>,
    /// JSON list of tensors that may only shrink; in weight space all others may then only grow
    #[arg(long, value_name = "FILE.json", value_parser = utf8(), help_heading = "Calibration")]
    pub sensitive: Option<String>,
}

/// Flags of what is written.
#[derive(Debug, clap::Args)]
pub struct OutputFlags {
    /// Folder to write
    #[arg(short, long, value_name = "DIR", help_heading = "Output")]
    pub out: Option<PathBuf>,
    /// Element type of the output [default: that of the base]
    #[arg(long, value_name = "TYPE", value_parser = words(&DTYPES), help_heading = "Output")]
    pub dtype: Option<String>,
    /// What becomes of NaN and infinities in the models, and of results too large for their type [default: error]
    ///
    /// `error`: nothing is written, and the message names the first; `propagate`: they are computed with; `base`: the
    /// base's own element stands there. All are counted. What no model has changed stays as it is.
    #[arg(long, value_name = "WHAT", value_parser = words(NonFinite::WORDS), help_heading = DANGEROUS)]
    pub non_finite: Option<String>,
    /// Most bytes of one file
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "5GB", help_heading = "Output")]
    pub shard_size: u64,
}

/// Flags of how a merge is written.
#[derive(Debug, clap::Args)]
pub struct RunFlags {
    /// Replace an earlier result in the folder
    #[arg(long, help_heading = DANGEROUS)]
    pub overwrite: bool,
    /// Go on with a merge that was interrupted
    ///
    /// The same command again, with this flag: tensors that are safe in the folder are not computed again, and the result
    /// is the same to the last byte. Where nothing was begun, it begins; where all is done, it says so. If recipe, inputs,
    /// device or anything else that decides the bytes has changed, it is an error.
    #[arg(long, help_heading = "Output")]
    pub resume: bool,
    /// Record the SHA-256 of inputs of more than 1 GB too, and of what comes of them
    ///
    /// The receipt, magic.json, holds the size of every file that went in or came out, and its SHA-256 if the inputs have
    /// at most 1 GB in all; with this flag always, which for large models takes longer than the merge.
    #[arg(long, help_heading = "Output")]
    pub hash: bool,
}

/// `magic calibrate`.
#[derive(Debug, clap::Args)]
pub struct CalibrateArgs {
    /// The model that the others were fine-tuned from
    #[arg(long, value_name = "PATH", value_parser = utf8(), help_heading = "What is calibrated")]
    pub base: String,
    /// A fine-tuned model that went into the merge; once for each
    #[arg(long = "model", required = true, value_name = "PATH", value_parser = utf8())]
    #[arg(help_heading = "What is calibrated")]
    pub models: Vec<String>,
    /// The merge, by whatever program
    #[arg(long, value_name = "PATH", value_parser = utf8(), help_heading = "What is calibrated")]
    pub merged: String,
    /// Tensors to copy from the merge as they are, such as 'classifier.*'; once for each pattern
    #[arg(long, value_name = "GLOB", value_parser = utf8(), help_heading = "What is calibrated")]
    pub exclude: Vec<String>,
    /// Calibration.
    #[command(flatten)]
    pub calibration: Calibration,
    /// Output.
    #[command(flatten)]
    pub output: OutputFlags,
    /// Products.
    #[command(flatten, next_help_heading = "Calibration")]
    pub products: Products,
    /// How it is written.
    #[command(flatten)]
    pub run: RunFlags,
    /// Failures.
    #[command(flatten, next_help_heading = "Output")]
    pub recovery: Recovery,
}

impl Merge {
    /// The flags that make or change a recipe, as the library takes them.
    pub fn quick(&self) -> Quick {
        Quick { lora_out: self.lora_out, ..self.what.quick() }
    }
}

impl RecipeFlags {
    /// These flags, as the library takes them.
    pub fn quick(&self) -> Quick {
        Quick {
            base: self.base.clone(),
            models: self.models.clone(),
            method: self.method.clone(),
            params: self.params.clone(),
            seed: self.seed,
            exclude: self.exclude.clone(),
            ..self.calibration.quick(&self.output)
        }
    }
}

impl Calibration {
    /// What of these flags, and of the samples of a recipe, says nothing to the calibration of `recipe`. A script may loop
    /// over spaces with the same flags for all: that is no error, but worth a word.
    pub fn idle(&self, recipe: &Recipe) -> Option<String> {
        let Calibrate { space, manifold, .. } = &recipe.calibrate;
        let features = matches!(space, Space::Fsc | Space::Dsc | Space::Auto);
        let weights = matches!(space, Space::Wsc | Space::Dsc | Space::Auto);
        let normed = weights && matches!(manifold, Manifold::Sphere | Manifold::Tensor);
        let own = !recipe.calibrate.data.is_empty() || recipe.models.iter().any(|entry| entry.data.is_some());
        let flags = [
            ("`--manifold`", self.manifold.is_some(), weights),
            ("`--norm`", self.norm.is_some(), normed),
            ("`--fit`", self.fit.is_some(), features && *space != Space::Auto),
            ("`--propagate`", self.propagate.is_some(), features && *space != Space::Auto),
            ("`--samples`", self.samples.is_some(), features),
            ("`--data`", !self.data.is_empty(), features),
            ("`--sensitive`", self.sensitive.is_some(), *space != Space::None),
            ("the recipe's `data`", own && self.data.is_empty(), features),
        ];
        let idle: Vec<&str> = flags.iter().filter(|(_, given, used)| *given && !used).map(|(flag, ..)| *flag).collect();
        let does = if idle.len() == 1 { "does" } else { "do" };
        let with = match space {
            Space::None => "without calibration".to_owned(),
            space if weights => format!("with `{space}` calibration, manifold `{manifold}`"),
            space => format!("with `{space}` calibration"),
        };
        (!idle.is_empty()).then(|| format!("{} {does} nothing {with}", idle.join(", ")))
    }

    /// These flags alone, with the output's type.
    pub fn quick(&self, output: &OutputFlags) -> Quick {
        Quick {
            calibrate: self.calibrate.clone(),
            manifold: self.manifold.clone(),
            norm: self.norm.clone(),
            fit: self.fit.clone(),
            samples: self.samples,
            propagate: self.propagate.clone(),
            data: self.data.clone(),
            sensitive: self.sensitive.clone(),
            dtype: output.dtype.clone(),
            non_finite: output.non_finite.clone(),
            ..Quick::default()
        }
    }
}
