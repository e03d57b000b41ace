//! The task-vector stack: what every merge's list of calls starts with.

use crate::kernels::{delta, rescale};
use crate::plan::Tensor;
use crate::recipe::NonFinite;
use crate::recording::{Buf, Recording, Size};

/// Buffers of a recording that holds task vectors.
pub struct Stack {
    /// The base's stored elements.
    pub base: Buf,
    /// Task vectors, one plane an expert, then, where the recording has one more plane, the merged one.
    pub tau: Buf,
    experts: Vec<Buf>,
    non_finite: NonFinite,
}

impl Stack {
    /// Declares inputs and planes, and appends the differences of the first `experts` experts from the base.
    pub fn record(list: &mut Recording, tensor: &Tensor, experts: usize) -> Self {
        let base = list.input("base", 0, tensor.sources[0].dtype);
        let experts = (1..=experts).map(|i| list.input("expert", i, tensor.sources[i].dtype)).collect();
        let tau = list.scratch("tau", Size::Planes(list.planes));
        let stack = Self { base, tau, experts, non_finite: tensor.non_finite };
        stack.differences(list);
        stack
    }

    /// Appends the last plane: the difference of the merge that was given, source `source` of the tensor, from the base.
    pub fn given(&self, list: &mut Recording, tensor: &Tensor, source: usize) {
        let merged = list.input("merged", source, tensor.sources[source].dtype);
        difference(list, self.non_finite, self.base, merged, self.tau, list.planes - 1);
    }

    /// Appends the experts' differences (again, after they were masked in place).
    pub fn differences(&self, list: &mut Recording) {
        for (k, &expert) in self.experts.iter().enumerate() {
            difference(list, self.non_finite, self.base, expert, self.tau, k as u32);
        }
    }
}

/// Appends `out = base + xi · tau[last]`; what is not finite, or not in the output type, is what `non_finite` says.
pub fn sum(list: &mut Recording, non_finite: NonFinite, [base, tau, xi, out, counts]: [Buf; 5]) {
    let record = if non_finite == NonFinite::Base { rescale::record_finite } else { rescale::record };
    record(list, base, tau, xi, out, counts);
}

/// Appends `tau[plane] = model − base`; what is not finite there is what `non_finite` says.
pub fn difference(list: &mut Recording, non_finite: NonFinite, base: Buf, model: Buf, tau: Buf, plane: u32) {
    let record = if non_finite == NonFinite::Base { delta::record_finite } else { delta::record };
    record(list, base, model, tau, plane);
}
