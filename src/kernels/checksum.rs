//! A checksum of what a kernel wrote, taken on the device: what is read back must have the same.

use bytemuck::{Pod, Zeroable};

use super::{Access, Args, Form, Kernel, WORKGROUP};

/// Own parameters; twin of `Params` in `shaders/checksum.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// A number that no other run has.
    pub epoch: u32,
    /// Where in the trailer the sum goes; not 0, which is the epoch's place.
    pub slot: u32,
}

/// Words that one workgroup sums.
pub(crate) const PER_GROUP: u32 = WORKGROUP * 64;

/// Bindings: words (`[n]`), trailer (the epoch, then a sum for each buffer; zero before). `Dims::n` counts words.
pub static CHECKSUM: Kernel = Kernel {
    name: "checksum",
    wgsl: include_str!("../../shaders/checksum.wgsl"),
    constants: &[],
    bindings: &[Access::Read, Access::Write],
    form: Form::Shader(|dims| u64::from(dims.n).div_ceil(u64::from(PER_GROUP))),
    twin,
};

fn twin(args: &mut Args<'_>) {
    let params = args.params::<Params>();
    let words = &args.read::<u32>(0)[..args.dims.n as usize];
    let trailer = args.write::<u32>(1);
    let slot = &mut trailer[params.slot as usize];
    *slot = slot.wrapping_add(checksum(words, 0, params.epoch));
    trailer[0] = params.epoch;
}

/// The sum over `words`, the first of which is word `first` of its buffer. Sums of parts add up to that of the whole.
#[multiversion::multiversion(targets = "simd")]
pub fn checksum(words: &[u32], first: u32, epoch: u32) -> u32 {
    let mut sum = 0u32;
    let mut salt = first.wrapping_mul(0x9e37_79b1).wrapping_add(epoch);
    for &word in words {
        let h = (word ^ salt).wrapping_mul(0x85eb_ca6b);
        let h = (h ^ (h >> 15)).wrapping_mul(0xc2b2_ae35);
        sum = sum.wrapping_add(h ^ (h >> 13));
        salt = salt.wrapping_add(0x9e37_79b1);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn parts_add_up_and_places_count() {
        let words: Vec<u32> = (0..10_000u32).map(|i| i.wrapping_mul(i)).collect();
        let whole = checksum(&words, 0, 7);
        assert_eq!(whole, checksum(&words[..1234], 0, 7).wrapping_add(checksum(&words[1234..], 1234, 7)));
        let mut swapped = words.clone();
        swapped.swap(17, 4711);
        assert_ne!(whole, checksum(&swapped, 0, 7));
        assert_ne!(whole, checksum(&words, 0, 8));
        assert_ne!(checksum(&[0; 64], 0, 1), checksum(&[0; 65], 0, 1));
    }
}
