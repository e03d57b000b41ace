//! A merge by several machines.

use std::path::PathBuf;

use super::merge::RecipeFlags;
use super::shared::Recovery;

/// `magic plan`.
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// What is merged, how and where.
    #[command(flatten)]
    pub what: RecipeFlags,
}

/// `magic measure`.
#[derive(Debug, clap::Args)]
pub struct Measure {
    /// The folder of the plan
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Failures.
    #[command(flatten)]
    pub recovery: Recovery,
}

/// `magic work`.
#[derive(Debug, clap::Args)]
pub struct Work {
    /// The folder of the plan
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Number of the shard, from 0 [default: `SLURM_ARRAY_TASK_ID`, `JOB_COMPLETION_INDEX` or `RANK`]
    #[arg(long, value_name = "I")]
    pub shard: Option<usize>,
    /// Failures.
    #[command(flatten)]
    pub recovery: Recovery,
}

/// `magic finalize`.
#[derive(Debug, clap::Args)]
pub struct Finalize {
    /// The folder of the plan
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Take shards that different devices have made, whose last bits may differ from those of one
    #[arg(long)]
    pub mixed: bool,
    /// Record SHA-256 of inputs of more than 1 GB too
    #[arg(long)]
    pub hash: bool,
}
