//! Rows as f16, each scaled by a power of two: the operands of a product by cooperative matrices.

use bytemuck::{Pod, Zeroable};

use super::vector::each_row;
use super::{Access, Args, Form, Kernel, holds, per_row};
use crate::recording::{Buf, Recording, Region, Size};

/// Own parameters; twin of `Params` in `shaders/narrow_rows.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    from: u32,
    pitch: u32,
}

/// Words of the scale of a row: s and 1/s.
pub const WIDTH: u32 = 2;

/// Columns of f16 come in multiples of this, zeros at the end.
pub const COLUMNS: u32 = 32;

/// Words of a row of `len` elements.
pub fn pitch(len: u32) -> u32 {
    len.next_multiple_of(COLUMNS) / 2
}

/// Sizes of what becomes of `rows` of `len` elements: of the elements, and of the scales.
pub fn sizes(rows: u32, len: u32) -> [Size; 2] {
    [pitch(len), WIDTH].map(|words| Size::Fixed(rows * words))
}

/// Bindings: x (`[rows, row_len]` from an offset), out (`[rows]` of [`pitch`]), scales (`[rows]` of [`WIDTH`]).
pub static NARROW_ROWS: Kernel = Kernel {
    name: "narrow_rows",
    wgsl: include_str!("../../shaders/narrow_rows.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write, Access::Write],
    form: Form::Shader(per_row),
    twin,
};

/// Appends `scales[r]` = (s, 1/s), s being the power of two for which s·max|x[r, ·]| is in [2¹⁴, 2¹⁵), and
/// `out[r, ·] = s·x[r, ·]` as f16.
pub fn record(list: &mut Recording, (rows, row_len): (u32, u32), x: Buf, from: u32, [out, scales]: [Buf; 2]) {
    let pitch = pitch(row_len);
    holds(list, x, from, rows, row_len);
    holds(list, out, 0, rows, pitch);
    holds(list, scales, 0, rows, WIDTH);
    list.call_over((rows, row_len), &NARROW_ROWS, &[], &Params { from, pitch }, &[x, out, scales]);
    // As many words of both; a row of out has more.
    list.sets(Region::rows(rows, WIDTH));
}

fn twin(args: &mut Args<'_>) {
    let (rows, len) = (args.dims.rows as usize, args.dims.row_len as usize);
    let Params { from, pitch } = args.params();
    let x = &args.read::<u32>(0)[from as usize..];
    let out = &mut args.write::<u16>(1)[..rows * 2 * pitch as usize];
    let scales = &mut args.write::<[f32; 2]>(2)[..rows];
    let row = |r: usize| &x[r * len..][..len];
    each_row(scales, 1, |r, scale| scale[0] = of(row(r)));
    each_row(out, 2 * pitch as usize, |r, out| {
        out.fill(0);
        for (out, bits) in out.iter_mut().zip(row(r)) {
            *out = half::f16::from_f32(f32::from_bits(*bits) * scales[r][0]).to_bits();
        }
    });
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
