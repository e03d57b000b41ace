//! Stored element types: header name, size, and the code that shaders and twins know them by.

use std::sync::{Mutex, PoisonError};

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// bfloat16: the upper half of a binary32.
    BF16,
    /// IEEE binary16.
    F16,
    /// IEEE binary64; rounded to binary32 when read.
    F64,
    /// 8 bits, 4 of exponent, 3 of mantissa, no infinity (OCP E4M3, `float8_e4m3fn`).
    F8E4M3,
    /// 8 bits, 5 of exponent, 2 of mantissa (OCP E5M2).
    F8E5M2,
    /// Any other type, by its name in the header: copied, never computed. `bits` is its size, 0 if unknown.
    Other {
        /// Name in the header.
        name: &'static str,
        /// Bits of one element, 0 where the name is not known.
        bits: u32,
    },
}

/// Types that are copied: integers, booleans, complex, scaled and sub-byte floats.
const OTHERS: &[(&str, u32)] = &[
    ("BOOL", 8),
    ("U8", 8),
    ("I8", 8),
    ("U16", 16),
    ("I16", 16),
    ("U32", 32),
    ("I32", 32),
    ("U64", 64),
    ("I64", 64),
    ("C64", 64),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
];

/// Keeps the name of an unknown type for the life of the process: few and short, so that no header can fill memory.
fn intern(name: &str) -> Option<&'static str> {
    static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.iter().find(|known| **known == name) {
        return Some(known);
    }
    if names.len() >= 64 || name.len() > 32 {
        return None;
    }
    let kept: &'static str = Box::leak(name.into());
    names.push(kept);
    Some(kept)
}

impl Dtype {
    /// The floats that can be computed with, in the order of their shader codes.
    pub const FLOATS: [Self; 6] = [Self::F32, Self::BF16, Self::F16, Self::F64, Self::F8E4M3, Self::F8E5M2];

    /// The type that a safetensors header calls `name`. A name that is not known gives an opaque type of size 0,
    /// which keeps its name unless that is longer than 32 bytes or one of too many.
    pub fn from_header(name: &str) -> Self {
        match name {
            "F32" => Self::F32,
            "BF16" => Self::BF16,
            "F16" => Self::F16,
            "F64" => Self::F64,
            "F8_E4M3" => Self::F8E4M3,
            "F8_E5M2" => Self::F8E5M2,
            _ => match OTHERS.iter().find(|(known, _)| *known == name) {
                Some(&(name, bits)) => Self::Other { name, bits },
                None => Self::Other { name: intern(name).unwrap_or("unknown"), bits: 0 },
            },
        }
    }

    /// Name in a safetensors header.
    pub fn header_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::BF16 => "BF16",
            Self::F16 => "F16",
            Self::F64 => "F64",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::Other { name, .. } => name,
        }
    }

    /// Name in a recipe, in `config.json` and in PyTorch, for the types that `--dtype` takes.
    pub fn torch_name(self) -> Option<&'static str> {
        match self {
            Self::F32 => Some("float32"),
            Self::BF16 => Some("bfloat16"),
            Self::F16 => Some("float16"),
            _ => None,
        }
    }

    /// The type that `--dtype`, `dtype` and `out_dtype` call `name`.
    pub fn from_torch_name(name: &str) -> Option<Self> {
        Self::FLOATS.into_iter().find(|dtype| dtype.torch_name() == Some(name))
    }

    /// Bits of one element; 0 where it is not known.
    pub fn bits(self) -> u32 {
        match self {
            Self::F64 => 64,
            Self::F32 => 32,
            Self::BF16 | Self::F16 => 16,
            Self::F8E4M3 | Self::F8E5M2 => 8,
            Self::Other { bits, .. } => bits,
        }
    }

    /// Bytes of one element of a float type.
    pub fn size(self) -> usize {
        self.bits() as usize / 8
    }

    /// True for the types that are computed with; all others are copied.
    pub fn is_float(self) -> bool {
        !matches!(self, Self::Other { .. })
    }

    /// Number by which `shaders/common.wgsl` knows a float type.
    pub fn code(self) -> u32 {
        Self::FLOATS.iter().position(|&dtype| dtype == self).map_or(u32::MAX, |code| code as u32)
    }
}
