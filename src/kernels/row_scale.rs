//! Powers of two by which rows fit f16: the scales of a product by cooperative matrices.

use bytemuck::{Pod, Zeroable};

use super::vector::each_row;
use super::{Access, Args, Form, Kernel, holds, per_row};
use crate::recording::{Buf, Recording, Region};

/// Own parameters; twin of `Params` in `shaders/row_scale.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    from: u32,
}

/// Words of the scale of a row: s and 1/s.
pub const WIDTH: u32 = 2;

/// Bindings: x (`[rows, row_len]` from an offset), scales (`[rows]` of [`WIDTH`]).
pub static ROW_SCALE: Kernel = Kernel {
    name: "row_scale",
    wgsl: include_str!("../../shaders/row_scale.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Shader(per_row),
    twin,
};

/// Appends `scales[r]` = (s, 1/s), s being the power of two for which s·max|x[r, ·]| is in [2¹⁴, 2¹⁵).
pub fn record(list: &mut Recording, (rows, row_len): (u32, u32), x: Buf, from: u32, scales: Buf) {
    holds(list, x, from, rows, row_len);
    holds(list, scales, 0, rows, WIDTH);
    list.call_over((rows, row_len), &ROW_SCALE, &[], &Params { from }, &[x, scales]);
    list.sets(Region::rows(rows, WIDTH));
}

fn twin(args: &mut Args<'_>) {
    let (rows, len) = (args.dims.rows as usize, args.dims.row_len as usize);
    let x = &args.read::<u32>(0)[args.params::<Params>().from as usize..];
    let scales = &mut args.write::<[f32; 2]>(1)[..rows];
    each_row(scales, 1, |row, scale| scale[0] = of(&x[row * len..][..len]));
}

/// The scale of a row, given as bits of f32.
fn of(row: &[u32]) -> [f32; 2] {
    let most = row.iter().map(|bits| bits & 0x7fff_ffff).max().unwrap_or(0);
    // Biased exponents; the bound keeps 1/s a normal number.
    let up = if most == 0 || most >= 0x7f80_0000 { 127 } else { (268 - (most >> 23)).min(240) };
    [up, 254 - up].map(|exponent| f32::from_bits(exponent << 23))
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn scaled_rows_fit_f16() {
        for x in [1.0f32, 65504.0, 65520.0, -1e38, f32::MAX, 1e-20, -0.3] {
            let [up, down] = of(&[0.0f32.to_bits(), x.to_bits()]);
            assert!((16384.0..32768.0).contains(&(x.abs() * up)) && up * down == 1.0, "{x}");
        }
        for x in [1e-45f32, 1e-38] {
            let [up, down] = of(&[x.to_bits()]);
            assert!(x * up < 32768.0 && up * down == 1.0 && down.is_normal(), "{x}");
        }
        for x in [0.0, f32::NAN, f32::NEG_INFINITY] {
            assert_eq!(of(&[x.to_bits()]), [1.0, 1.0]);
        }
        assert_eq!(of(&[]), [1.0, 1.0]);
    }
}
