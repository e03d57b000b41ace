//! The merged task vector of one tensor, as a list of calls.

use crate::error::Result;
use crate::kernels::norms;
use crate::methods::combine::Combination;
use crate::methods::sparsify::Masks;
use crate::plan::Tensor;
use crate::recording::Recording;
use crate::stack::Stack;
use crate::stream::Stream;
use crate::totals::{Totals, totals};

/// How the merged task vector of one tensor comes about, all numbers known.
pub struct Merged {
    /// What of each expert takes part.
    pub masks: Masks,
    /// How the parts become one.
    pub combination: Combination,
}

impl Merged {
    /// A list that leaves the experts' own task vectors in the first planes and the merged one in the last.
    pub fn record(&self, tensor: &Tensor) -> (Recording, Stack) {
        let mut list = Recording::new(tensor.experts() as u32 + 1);
        let stack = Stack::record(&mut list, tensor, tensor.experts());
        if tensor.given {
            stack.given(&mut list, tensor, tensor.sources.len() - 1);
            return (list, stack);
        }
        self.masks.record(&mut list, stack.tau);
        self.combination.record(&mut list, &stack, tensor);
        if !self.masks.is_identity() {
            stack.differences(&mut list); // calibration compares with what the experts learned, not with what was kept
        }
        (list, stack)
    }

    /// Statistics of every expert's task vector and, last, of the merged one. Reads the tensor once.
    pub fn totals(&self, stream: &Stream<'_>) -> Result<Vec<Totals>> {
        let (mut list, stack) = self.record(stream.tensor);
        let stats = list.result("stats", norms::size(list.planes));
        norms::record(&mut list, stack.tau, stats);
        Ok(totals(stream, &list)?.remove(0))
    }
}
