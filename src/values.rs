//! A whole tensor as f32, for what needs all of it at once.

use crate::checkpoint::text::shown;
use crate::checkpoint::{Checkpoint, Dtype};
use crate::error::{Error, Result, nearest};
use crate::kernels::convert::widen;

impl Checkpoint {
    /// All elements of the tensor `name` as f32, the last dimension running fastest. Types of 16 bits and less are
    /// widened exactly, f64 is rounded. It takes memory for the whole tensor.
    ///
    /// # Errors
    /// No such tensor, a type that is no float that can be computed with, a file that cannot be read or has changed.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let Some((tensor, info)) = self.get(name) else {
            let error = Error::input(format!("`{}` has no tensor `{}`", shown(self.name()), shown(name)));
            let near = nearest(name, self.names());
            return Err(near.into_iter().fold(error, |error, near| error.hint(format!("did you mean `{near}`?"))));
        };
        if !info.dtype.is_float() {
            let (of, dtype) = (shown(self.name()), info.dtype.header_name());
            return Err(Error::input(format!("tensor `{}` of `{of}` is {dtype}, which is no float", shown(name)))
                .hint("merges copy such tensors from the base"));
        }
        floats(self, tensor)
    }
}

/// All of a tensor of floats.
pub fn floats(checkpoint: &Checkpoint, tensor: usize) -> Result<Vec<f32>> {
    let info = &checkpoint.tensors()[tensor];
    let mut values = vec![0.0; info.elements() as usize];
    let mut stored = stored(info.dtype, values.len());
    let bytes: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut stored)[..info.bytes as usize];
    checkpoint.read_at(tensor, 0, bytes)?;
    widen(info.dtype, bytes, 0, &mut values);
    Ok(values)
}

/// Room for `count` elements, aligned as conversions want it.
pub fn stored(dtype: Dtype, count: usize) -> Vec<u64> {
    vec![0; (count * dtype.size()).div_ceil(8)]
}
