//! Square patches of images as rows: what makes a convolution whose stride is its width a product of matrices.

use bytemuck::{Pod, Zeroable};

use super::vector::each_row;
use super::{Access, Args, Form, Kernel, holds, per_quad};
use crate::recording::{Buf, Recording};

/// Shape of an image, and the side of a patch; twin of `Params` in `shaders/patches.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Image {
    /// Colours.
    pub channels: u32,
    /// Rows of pixels.
    pub height: u32,
    /// Pixels of a row.
    pub width: u32,
    /// Side of a patch.
    pub patch: u32,
}

impl Image {
    /// Whole patches from top to bottom, and from left to right.
    pub fn grid(&self) -> (u32, u32) {
        (self.height / self.patch, self.width / self.patch)
    }

    /// Elements of a patch.
    pub fn row_len(&self) -> u32 {
        self.channels * self.patch * self.patch
    }
}

/// Bindings: pixels (`[images, channels, height, width]`), out (`[images · patches, channels · patch · patch]`).
pub static PATCHES: Kernel = Kernel {
    name: "patches",
    wgsl: include_str!("../../shaders/patches.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Shader(per_quad),
    twin,
};

/// Appends `out` = the patches of `pixels`, row by row of an image; what is left over at its edges is no patch.
pub fn record(list: &mut Recording, images: u32, image: Image, pixels: Buf, out: Buf) {
    let (down, across) = image.grid();
    let shape = (images * down * across, image.row_len());
    holds(list, pixels, 0, images * image.channels, image.height * image.width);
    holds(list, out, 0, shape.0, shape.1);
    list.call_over(shape, &PATCHES, &[], &image, &[pixels, out]);
}

fn twin(args: &mut Args<'_>) {
    let (n, len) = (args.dims.n as usize, args.dims.row_len as usize);
    let image: Image = args.params();
    let [channels, height, width, patch] =
        [image.channels, image.height, image.width, image.patch].map(|side| side as usize);
    let (down, across) = (height / patch, width / patch);
    let pixels = args.read::<f32>(0);
    each_row(&mut args.write::<f32>(1)[..n], len, |r, out| {
        let (number, y, x) = (r / across / down, r / across % down, r % across);
        for (line, out) in out.chunks_exact_mut(patch).enumerate() {
            let row = (number * channels + line / patch) * height + y * patch + line % patch;
            out.copy_from_slice(&pixels[row * width + x * patch..][..patch]);
        }
    });
}
