//! Merges that need every task vector as a whole matrix: decompositions, computed once and then streamed like any input.

use crate::decompose::{self, Route, Rule};
use crate::error::{Error, Result};
use crate::plan::Tensor;
use crate::recording::{Recording, Size};
use crate::stack::difference;
use crate::stream::Stream;

/// Computes λ · the merged task vector of the stream's tensor and gives it to the stream. `budget` is what a GPU may
/// take for it, in bytes.
pub fn merge(stream: &mut Stream<'_>, rule: Rule, budget: u64) -> Result<Route> {
    let tensor = stream.tensor;
    let shape = (tensor.shape[0] as usize, tensor.shape[1] as usize);
    let executor = stream.engine().executor;
    let mut expert = |k: usize| task_vector(stream, k);
    let merged = decompose::merge(rule, executor, budget, shape, tensor.experts(), &mut expert);
    let mut merged = merged.map_err(|e| {
        let error = Error::new(e.kind(), format!("`{}`: {e}", tensor.name));
        e.hints().iter().fold(error, |error, hint| error.hint(hint))
    })?;
    let lambda = tensor.settings.lambda as f32;
    merged.tau.iter_mut().for_each(|x| *x *= lambda);
    stream.give(merged.tau);
    Ok(merged.route)
}

/// w_k τ_k, element by element.
fn task_vector(stream: &Stream<'_>, k: usize) -> Result<Vec<f32>> {
    let whole = stream.tensor;
    // The same tensor, of the base and one expert alone.
    let tensor = Tensor { sources: vec![whole.sources[0], whole.sources[k + 1]], given: false, ..whole.clone() };
    let pair = Stream::new(stream.engine(), &tensor);
    let mut list = Recording::new(1);
    let base = list.input("base", 0, tensor.sources[0].dtype);
    let expert = list.input("expert", 1, tensor.sources[1].dtype);
    let tau = list.result("tau", Size::Planes(1));
    difference(&mut list, tensor.non_finite, base, expert, tau, 0);
    let weight = whole.settings.weights[k] as f32;
    let blocks = pair.map(&list, 0..tensor.blocks(), |extent, results| {
        Ok(results.floats(0)[..extent.n as usize].iter().map(|x| weight * x).collect::<Vec<f32>>())
    })?;
    Ok(blocks.concat())
}
