//! Commands about models and merges that are there.

use std::path::PathBuf;

use magic_merge::sensitivity::Metric;

use super::shared::{Products, Recovery};
use super::values::{DANGEROUS, method, utf8, words};

/// `magic eval`.
#[derive(Debug, clap::Args)]
pub struct Eval {
    /// The model
    #[arg(value_name = "MODEL", value_parser = utf8())]
    pub model: String,
    /// Samples: text or tokens for a language model, samples with labels for a classifier
    #[arg(long, value_name = "PATH", required = true, value_parser = utf8())]
    pub data: Vec<String>,
    /// A checkpoint whose classifier (tensors `classifier.*`) is used instead of the model's own
    #[arg(long, value_name = "CHECKPOINT", value_parser = utf8())]
    pub head: Option<String>,
    /// Most samples of each set [default: all]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Output folder of a merge whose page, report.html, is to show these scores too
    ///
    /// They are written into scores.json there, beside those of earlier runs: of the merge, and of its base and experts for
    /// comparison. `magic report` takes them from it.
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Products.
    #[command(flatten)]
    pub products: Products,
}

/// `magic sensitivity`.
#[derive(Debug, clap::Args)]
pub struct SensitivityArgs {
    /// The model that the others were fine-tuned from
    #[arg(long, value_name = "PATH", value_parser = utf8())]
    pub base: String,
    /// A fine-tuned model, with a weight if it has one; once for each
    #[arg(long = "model", required = true, value_name = "PATH[=WEIGHT]", value_parser = utf8())]
    pub models: Vec<String>,
    /// How they are merged
    #[arg(long, value_name = "NAME", value_parser = method(), hide_possible_values = true, default_value = "linear")]
    pub method: String,
    /// A parameter of the method; once for each
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = utf8())]
    pub params: Vec<String>,
    /// Tensors to copy from the base; once for each pattern
    #[arg(long, value_name = "GLOB", value_parser = utf8())]
    pub exclude: Vec<String>,
    /// Samples: once for all experts, or once for each in their order
    #[arg(long, value_name = "PATH", required = true, value_parser = utf8())]
    pub data: Vec<String>,
    /// Most samples of each set [default: 10]
    #[arg(long, value_name = "N")]
    pub samples: Option<usize>,
    /// Products.
    #[command(flatten)]
    pub products: Products,
    /// What is measured: growth of the loss, fall of the accuracy, or how far the last hidden state moves
    ///
    /// `drift` needs no labels; a language model's `loss` neither.
    #[arg(long, value_name = "NAME", value_parser = words(&Metric::WORDS), default_value = "drift")]
    pub metric: String,
    /// What each task vector is scaled by
    #[arg(long, value_name = "X", default_value_t = 1.1)]
    pub factor: f64,
    /// Tensors to name as sensitive, at most
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// JSON file to write, as `--sensitive` takes it
    #[arg(short, long, value_name = "FILE.json")]
    pub out: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long, requires = "out", help_heading = DANGEROUS)]
    pub overwrite: bool,
}

/// `magic verify`.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// Output folder of a merge
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Compute all tensors again, and not only some
    ///
    /// Without it: the largest, the smallest, and others by chance, about a tenth of the bytes; of a merge that was
    /// calibrated in feature space always all.
    #[arg(long)]
    pub all: bool,
    /// Failures.
    #[command(flatten)]
    pub recovery: Recovery,
}

/// `magic report`.
#[derive(Debug, clap::Args)]
pub struct Report {
    /// Output folder of a merge
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// `magic inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// The model that the others were fine-tuned from, or that adapters are put on
    #[arg(long, value_name = "PATH", value_parser = utf8())]
    pub base: Option<String>,
    /// Models: folders, `.safetensors` files, PyTorch checkpoints, or org/name in the local hub cache
    #[arg(required = true, value_name = "PATH", value_parser = utf8())]
    pub paths: Vec<String>,
    /// Show all tensors, each in a line
    #[arg(long)]
    pub all: bool,
    /// Tensors to leave out of what is learned; once for each pattern
    #[arg(long, value_name = "GLOB", value_parser = utf8(), requires = "base")]
    pub exclude: Vec<String>,
    /// Failures.
    #[command(flatten)]
    pub recovery: Recovery,
}

/// `magic diff`.
#[derive(Debug, clap::Args)]
pub struct Diff {
    /// The model that distances are measured from
    #[arg(value_name = "A", value_parser = utf8())]
    pub a: String,
    /// The other model
    #[arg(value_name = "B", value_parser = utf8())]
    pub b: String,
    /// What adapters are put on; without it, their own tensors are compared
    #[arg(long, value_name = "PATH", value_parser = utf8())]
    pub base: Option<String>,
    /// Show all tensors, those that are the same too, and not only the twenty that differ most
    #[arg(long)]
    pub all: bool,
    /// Tensors to compare, such as '*.mlp.*'; once for each pattern [default: all]
    #[arg(long, value_name = "GLOB", value_parser = utf8())]
    pub include: Vec<String>,
    /// Tensors to leave out; once for each pattern
    #[arg(long, value_name = "GLOB", value_parser = utf8())]
    pub exclude: Vec<String>,
    /// Exit with 1 if anything differs
    #[arg(long)]
    pub exit_code: bool,
}

/// `magic bench`.
#[derive(Debug, clap::Args)]
pub struct Bench {
    /// Only rows with this in their name, `norms` or `wsc`; once for each
    #[arg(long = "filter", value_name = "NAME", value_parser = utf8())]
    pub filters: Vec<String>,
    /// All adapters, software ones too, and the CPU
    #[arg(long)]
    pub all: bool,
    /// Smaller planes and fewer samples: a first look
    #[arg(long)]
    pub quick: bool,
    /// Elements of a plane [default: 67108864 on discrete GPUs, 4194304 and 32768 on the CPU]
    #[arg(long, value_name = "N")]
    pub elements: Option<u32>,
    /// Document of an earlier run, `magic bench --json > OLD.json`, to compare with
    #[arg(long, value_name = "OLD.json")]
    pub compare: Option<PathBuf>,
}

/// `magic demo`.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Folder to keep the models, all merges and the table in; without it they are removed
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Only this method; once for each
    #[arg(long = "method", value_name = "NAME", value_parser = method(), hide_possible_values = true)]
    pub methods: Vec<String>,
    /// Failures.
    #[command(flatten)]
    pub recovery: Recovery,
}
