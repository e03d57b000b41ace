//! Checkpoints whose stored numbers are no weights: they stand for weights together with scales that are stored beside
//! them, so that to merge them by themselves would give numbers without a meaning.

use super::text::shown;
use super::{Checkpoint, TensorInfo};
use crate::error::{Error, Result};

/// Ends of the names of what only quantised layers have: GPTQ and AWQ, compressed-tensors, bitsandbytes of 4 and of 8 bits.
const PARTS: [&str; 4] = [".qweight", ".weight_packed", ".absmax", ".SCB"];

/// Ends of the names of scales that stand beside a tensor of 8 bits: one for each block, or one for all.
const SCALES: [&str; 2] = ["_scale_inv", "_scale"];

/// Checks that the tensors of `checkpoint`, and of what they are computed from, are the weights themselves.
///
/// # Errors
/// A quantised checkpoint.
pub(crate) fn refuse(checkpoint: &Checkpoint) -> Result<()> {
    checkpoint.read_from().into_iter().try_for_each(refuse)?;
    let Some(tensor) = checkpoint.tensors().iter().find(|tensor| is_part(checkpoint, tensor)) else { return Ok(()) };
    let config = checkpoint.config().ok().flatten().unwrap_or_default();
    let method = config["quantization_config"]["quant_method"].as_str().map(|name| format!(" ({})", shown(name)));
    let (name, method, tensor) = (shown(checkpoint.name()), method.unwrap_or_default(), shown(&tensor.name));
    Err(Error::input(format!("`{name}` is quantised{method}: `{tensor}` says what its stored numbers stand for"))
        .hint("take the model in bfloat16, or convert it first; the result can be quantised again"))
}

fn is_part(checkpoint: &Checkpoint, tensor: &TensorInfo) -> bool {
    let scales = |end: &&str| {
        let of = tensor.name.strip_suffix(*end).and_then(|name| checkpoint.get(name));
        of.is_some_and(|(_, of)| of.dtype.size() == 1)
    };
    PARTS.iter().any(|end| tensor.name.ends_with(end)) || SCALES.iter().any(scales)
}
