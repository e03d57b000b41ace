//! An adapter: pairs of factors, and tensors that replace the base's.

use std::collections::HashMap;

use super::config::Config;
use super::file;
use super::keys::{self, Role};
use super::product::Factors;
use crate::checkpoint::text::{list, shown};
use crate::checkpoint::{Checkpoint, Dtype};
use crate::error::{Error, Result};
use crate::kernels::convert::{narrow, widen};
use crate::values::{floats, stored};

/// Where an adapter comes from, and so how its tensors are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A folder that PEFT wrote.
    Peft,
    /// A single file of a diffusion tool.
    File,
}

/// The factors of one module.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Its module, as the adapter spells it.
    pub module: String,
    /// Its module, as all spellings have it.
    pub key: String,
    /// A among the adapter's tensors: `[r, in]`, `[r, in, kh, kw]` or, of an embedding, `[r, rows]`.
    pub down: usize,
    /// B: `[out, r]`, `[out, r, 1, 1]` or, of an embedding, `[width, r]`.
    pub up: usize,
    /// Whether the module is an embedding, whose weight is `(B·A)ᵀ`.
    pub embedding: bool,
    /// r.
    pub rank: u64,
    /// What B·A is multiplied with.
    pub scale: f32,
    /// Dimensions of ΔW: `[out, in]`, `[out, in, kh, kw]`, or `[rows, width]` of an embedding.
    pub shape: Vec<u64>,
}

/// An opened adapter. Of its factors not a byte is read.
#[derive(Debug)]
pub struct Adapter {
    /// The file as it is.
    pub raw: Checkpoint,
    /// Where it comes from.
    pub form: Form,
    /// Its configuration, if it is PEFT's.
    pub config: Option<Config>,
    /// Modules in the order of the file.
    pub pairs: Vec<Pair>,
    /// Tensors of the model that it holds whole: their names, and their places in the file.
    pub whole: Vec<(String, usize)>,
}

/// Parts of a module that have been found.
#[derive(Default)]
struct Parts {
    down: Option<usize>,
    up: Option<usize>,
    alpha: Option<usize>,
    embedding: bool,
}

impl Adapter {
    /// Opens `spec`: `None` if it is a whole model.
    ///
    /// # Errors
    /// Whatever is wrong with the files, an adapter of another kind, factors that do not fit each other.
    pub fn find(spec: &str, search: &[std::path::PathBuf]) -> Result<std::result::Result<Self, Checkpoint>> {
        let (opened, is_adapter) = Checkpoint::open_any(spec, search)?;
        if is_adapter {
            return Self::peft(opened).map(Ok);
        }
        match opened.folder().is_none() && opened.tensors().iter().any(|tensor| file::is_part(&tensor.name)) {
            true => Self::file(opened).map(Ok),
            false => Ok(Err(opened)),
        }
    }

    fn peft(raw: Checkpoint) -> Result<Self> {
        let missing = || Error::input(format!("`{}` has no `adapter_config.json`", shown(raw.name())));
        let config = Config::new(raw.json("adapter_config.json")?.ok_or_else(missing)?, raw.name())?;
        Self::collect(raw, Form::Peft, Some(config))
    }

    fn file(raw: Checkpoint) -> Result<Self> {
        if raw.tensors().iter().any(|tensor| tensor.name.starts_with("base_model.model.")) {
            let what =
                format!("`{}` is the file of a PEFT adapter without its `adapter_config.json`", shown(raw.name()));
            return Err(Error::input(what).hint("name the folder that holds both"));
        }
        Self::collect(raw, Form::File, None)
    }

    fn collect(raw: Checkpoint, form: Form, config: Option<Config>) -> Result<Self> {
        let mut order = Vec::new();
        let mut found: HashMap<String, Parts> = HashMap::new();
        let mut whole = Vec::new();
        for (place, tensor) in raw.tensors().iter().enumerate() {
            let role = match form {
                Form::Peft => keys::peft(&tensor.name, raw.name())?,
                Form::File => file::role(&tensor.name, raw.name())?,
            };
            let (module, part, embedding): (_, fn(&mut Parts) -> &mut Option<usize>, _) = match role {
                Role::Down(module) => (module, |parts| &mut parts.down, false),
                Role::Up(module) => (module, |parts| &mut parts.up, false),
                Role::EmbeddingDown(module) => (module, |parts| &mut parts.down, true),
                Role::EmbeddingUp(module) => (module, |parts| &mut parts.up, true),
                Role::Alpha(module) => (module, |parts| &mut parts.alpha, false),
                Role::Whole(name) => {
                    whole.push((name, place));
                    continue;
                }
                Role::Unused => continue,
            };
            let parts = found.entry(module.clone()).or_insert_with(|| {
                order.push(module.clone());
                Parts::default()
            });
            parts.embedding |= embedding;
            if part(parts).replace(place).is_some() {
                let what = format!("`{}` has two factors of one kind for `{}`", shown(raw.name()), shown(&module));
                return Err(Error::input(what).hint("it holds several adapters: save one alone"));
            }
        }
        let mut pairs = Vec::with_capacity(order.len());
        for module in order {
            pairs.push(pair(&raw, form, config.as_ref(), &found[&module], module)?);
        }
        if pairs.is_empty() && whole.is_empty() {
            return Err(Error::input(format!("the adapter `{}` holds no tensor", shown(raw.name()))));
        }
        let mut keys: Vec<&str> = pairs.iter().map(|pair| pair.key.as_str()).collect();
        keys.sort_unstable();
        if let Some(two) = keys.windows(2).find(|two| two[0] == two[1]) {
            let what = format!("`{}` has the module {} under two names", shown(raw.name()), list([two[0]], 1));
            return Err(Error::input(what).hint("save it again with one naming scheme"));
        }
        Ok(Self { raw, form, config, pairs, whole })
    }

    /// Reads the factors of `pair`, with `left · right` = ΔW, or ΔWᵀ if `transposed`.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub fn factors(&self, pair: &Pair, transposed: bool) -> Result<Factors> {
        let rank = pair.rank as usize;
        let (down, up) = (floats(&self.raw, pair.down)?, floats(&self.raw, pair.up)?);
        let (inputs, outputs) = (down.len() / rank, up.len() / rank);
        // An embedding's own orientation is the transposed one.
        Ok(match transposed != pair.embedding {
            false => Factors { left: up, right: down, rank, cols: inputs, scale: pair.scale },
            true => Factors {
                left: transpose(&down, rank, inputs),
                right: transpose(&up, outputs, rank),
                rank,
                cols: outputs,
                scale: pair.scale,
            },
        })
    }
}

/// Checks a pair against itself and the configuration.
fn pair(raw: &Checkpoint, form: Form, config: Option<&Config>, parts: &Parts, module: String) -> Result<Pair> {
    let (at, name) = (shown(raw.name()), shown(&module));
    let (Some(down), Some(up)) = (parts.down, parts.up) else {
        let (lacks, has) = if parts.down.is_none() { ("A (down)", "B") } else { ("B (up)", "A") };
        let has = if parts.down.is_none() && parts.up.is_none() { "only alpha" } else { has };
        return Err(Error::input(format!("module `{name}` of `{at}` lacks its factor {lacks}: it has {has}"))
            .hint("the file is incomplete: download or save it again"));
    };
    let (a, b) = (&raw.tensors()[down], &raw.tensors()[up]);
    for factor in [a, b] {
        if !factor.dtype.is_float() {
            let (factor, dtype) = (shown(&factor.name), factor.dtype.header_name());
            let what = format!("`{factor}` of `{at}` is stored as {dtype}, which cannot be computed with");
            return Err(Error::input(what).hint("save the adapter in float32, bfloat16 or float16"));
        }
    }
    let fits = a.shape.len() >= 2
        && (b.shape.len() == 2 || b.shape.len() == a.shape.len() && b.shape[2..].iter().all(|dim| *dim == 1))
        && a.shape[0] == b.shape[1]
        && (!parts.embedding || a.shape.len() == 2)
        && !a.shape.contains(&0)
        && !b.shape.contains(&0);
    if !fits {
        let what = format!("the factors of `{name}` in `{at}` do not fit: A is {:?} and B {:?}", a.shape, b.shape);
        return Err(
            Error::input(what).hint("A is [r, in] and B [out, r], or [r, in, height, width] and [out, r, 1, 1]")
        );
    }
    let rank = a.shape[0];
    let scale = match config {
        Some(config) => {
            let said = config.rank(&module)?;
            if said != rank {
                let what = format!("`{name}` of `{at}` has rank {rank}, and `adapter_config.json` says {said}");
                return Err(Error::input(what).hint("correct `r` or `rank_pattern`: the scale depends on it"));
            }
            config.scale(&module)?
        }
        None => alpha(raw, parts.alpha, &name)?.map_or(1.0, |alpha| alpha / rank as f32),
    };
    let mut shape = vec![b.shape[0]];
    shape.extend(&a.shape[1..]);
    if parts.embedding {
        shape.reverse();
    }
    let key = if form == Form::File { file::canonical(&module) } else { module.clone() };
    Ok(Pair { module, key, down, up, embedding: parts.embedding, rank, scale, shape })
}

/// α of a module of a single file.
fn alpha(raw: &Checkpoint, place: Option<usize>, module: &str) -> Result<Option<f32>> {
    let Some(place) = place else { return Ok(None) };
    let info = &raw.tensors()[place];
    let bad = |what: &str| {
        let what = format!("the alpha of `{module}` in `{}` {what}", shown(raw.name()));
        Err(Error::input(what).hint("leave the adapter out, or save the alpha that it was trained with"))
    };
    if info.elements() != 1 {
        return bad("is not one number");
    }
    let value = match info.dtype.is_float() {
        true => floats(raw, place)?[0],
        false => match integer(raw, place)? {
            Some(value) => value,
            None => return bad(&format!("is stored as {}", info.dtype.header_name())),
        },
    };
    match value {
        0.0 => bad("is 0: it does nothing"),
        alpha if alpha.is_finite() => Ok(Some(alpha)),
        _ => bad("is not finite"),
    }
}

/// A tensor of one integer; `None` if it is of another type.
fn integer(raw: &Checkpoint, place: usize) -> Result<Option<f32>> {
    let name = raw.tensors()[place].dtype.header_name();
    let (signed, size) = match name {
        "I8" | "I16" | "I32" | "I64" => (true, &name[1..]),
        "U8" | "U16" | "U32" | "U64" => (false, &name[1..]),
        _ => return Ok(None),
    };
    let size: usize = size.parse().expect("one of the above");
    let mut bytes = [0; 8];
    raw.read_at(place, 0, &mut bytes[..size / 8])?;
    let value = u64::from_le_bytes(bytes);
    // The sign bit to the top and back.
    let shift = 64 - size;
    Ok(Some(if signed { ((value << shift) as i64 >> shift) as f32 } else { value as f32 }))
}

/// `values` as they are stored, and what that is in f32 again.
pub(crate) fn rounded(dtype: Dtype, values: &mut [f32]) -> Vec<u8> {
    let mut words = stored(dtype, values.len());
    let bytes: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut words)[..values.len() * dtype.size()];
    narrow(dtype, values, bytes, 0);
    widen(dtype, bytes, 0, values);
    bytes.to_vec()
}

/// `[rows, cols]` to `[cols, rows]`.
pub(super) fn transpose(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    for i in 0..rows {
        for j in 0..cols {
            out[j * rows + i] = x[i * cols + j];
        }
    }
    out
}
