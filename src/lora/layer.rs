//! An adapter over a base, as a checkpoint: the base's tensors, those that the adapter touches computed as they are read.

use std::sync::{Arc, Mutex, PoisonError};

use super::adapter::{Adapter, Form, Pair};
use super::product::Factors;
use crate::checkpoint::text::shown;
use crate::checkpoint::{Checkpoint, Dtype, Overlay, TensorInfo};
use crate::error::{Error, Result, nearest};
use crate::kernels::convert::widen;
use crate::values::stored;

/// Most elements that one read computes at a time.
const PIECE: usize = 1 << 18;
/// Bytes of factors that stay loaded, besides the last.
const KEPT: usize = 32 << 20;

/// What an adapter does to a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Nothing.
    None,
    /// It adds B·A of pair `pair`, `transposed` where the weight is stored as `[in, out]`; to the base's values or to
    /// those of its own tensor `base`.
    Pair {
        /// Its place among the adapter's pairs.
        pair: usize,
        /// Whether rows are inputs.
        transposed: bool,
        /// Its place among the adapter's tensors.
        base: Option<usize>,
    },
    /// Its own tensor takes the base's place.
    Whole(usize),
}

/// What lies below.
#[derive(Debug)]
pub enum Below {
    /// A checkpoint.
    Model(Box<Checkpoint>),
    /// Nothing: all zeros.
    Zeros,
}

/// An adapter over a base.
#[derive(Debug)]
pub struct Layer {
    /// The adapter.
    pub adapter: Adapter,
    below: Below,
    /// For each tensor of the result.
    touches: Vec<Touch>,
    tensors: Vec<TensorInfo>,
    /// Factors by tensor, the most recently used last.
    kept: Mutex<Vec<(usize, Arc<Factors>)>>,
}

/// Zeros alone.
#[derive(Debug)]
struct Nothing;

impl Overlay for Nothing {
    fn read_at(&self, _: usize, _: u64, buf: &mut [u8]) -> Result<()> {
        buf.fill(0);
        Ok(())
    }

    fn below(&self, _: usize) -> Option<&Checkpoint> {
        None
    }

    fn read_from(&self) -> Vec<&Checkpoint> {
        Vec::new()
    }
}

/// A checkpoint of zeros with these names and shapes.
pub fn zeros(tensors: &[(String, Vec<u64>)]) -> Checkpoint {
    let info = |(name, shape): &(String, Vec<u64>)| TensorInfo::computed(name.clone(), shape.clone());
    Checkpoint::computed("zeros", tensors.iter().map(info).collect(), Box::new(Nothing))
}

impl Layer {
    /// Puts `adapter` over `base`.
    ///
    /// # Errors
    /// A module that the base does not have, or has in another shape.
    pub fn over(adapter: Adapter, base: Checkpoint) -> Result<Arc<Self>> {
        let mut tensors = base.tensors().to_vec();
        let mut touches = vec![Touch::None; tensors.len()];
        for (name, place) in &adapter.whole {
            let own = &adapter.raw.tensors()[*place];
            match find(&base, name) {
                Found::One(tensor) => {
                    tensors[tensor] = TensorInfo { name: tensors[tensor].name.clone(), ..own.clone() };
                    touches[tensor] = Touch::Whole(*place);
                }
                // Said to be one too many, or excluded, like any other tensor that the base does not have.
                _ => {
                    tensors.push(TensorInfo { name: name.clone(), ..own.clone() });
                    touches.push(Touch::Whole(*place));
                }
            }
        }
        let known = base.tensors().len();
        let mut open = Vec::new();
        for (number, pair) in adapter.pairs.iter().enumerate() {
            let tensor = place(&adapter, pair, &base)?;
            let info = &tensors[tensor];
            if !info.dtype.is_float() {
                let (name, dtype) = (shown(&info.name), info.dtype.header_name());
                let what = format!("`{name}` of `{}` is stored as {dtype}", shown(base.name()));
                return Err(Error::input(format!(
                    "{what}: the adapter `{}` cannot be added",
                    shown(adapter.raw.name())
                ))
                .hint("name a base that is not quantised"));
            }
            let stored: Vec<u64> = pair.shape.iter().rev().copied().collect();
            let (plain, turned) = (info.shape == pair.shape, pair.shape.len() == 2 && info.shape == stored);
            if !plain && (!turned || pair.embedding) {
                return Err(Error::input(format!(
                    "module `{}` of `{}` changes a weight of {:?}, and `{}` is {:?} in `{}`",
                    shown(&pair.module),
                    shown(adapter.raw.name()),
                    pair.shape,
                    shown(&info.name),
                    info.shape,
                    shown(base.name())
                ))
                .hint("it was trained on another base: name that one as the base"));
            }
            let base = match touches[tensor] {
                Touch::Whole(place) => Some(place),
                _ => None,
            };
            if let Touch::Pair { .. } = touches[tensor] {
                let what = format!("two modules of `{}` change `{}`", shown(adapter.raw.name()), shown(&info.name));
                return Err(Error::input(what).hint("save the adapter again: its modules have unclear names"));
            }
            touches[tensor] = Touch::Pair { pair: number, transposed: !plain, base };
            tensors[tensor] = TensorInfo::computed(info.name.clone(), info.shape.clone());
            if plain && turned && !pair.embedding {
                open.push(tensor);
            }
        }
        // A square weight does not tell its orientation. PEFT's flag is that of the module it met last, and the model's
        // other modules know better; an output head is never transposed.
        let mut told = touches[..known].iter().enumerate().filter_map(|(tensor, touch)| match touch {
            Touch::Pair { pair, transposed, .. } if !open.contains(&tensor) => {
                let pair = &adapter.pairs[*pair];
                (!pair.embedding && pair.shape.len() == 2 && !pair.module.ends_with("lm_head")).then_some(*transposed)
            }
            _ => None,
        });
        let flag = adapter.config.as_ref().is_some_and(|config| config.fan_in_fan_out);
        let turned = told.next().map_or(flag, |first| first || told.any(|transposed| transposed));
        for tensor in open {
            if let Touch::Pair { transposed, .. } = &mut touches[tensor] {
                *transposed = turned;
            }
        }
        if let (Some(said), true) =
            (adapter.config.as_ref().and_then(|config| config.base()), log::log_enabled!(log::Level::Info))
        {
            let last = |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
            if last(said) != last(base.name()) {
                let (name, said, base) = (shown(adapter.raw.name()), shown(said), shown(base.name()));
                log::info!("{name} was trained on {said}, and is put on {base}");
            }
        }
        Ok(Arc::new(Self { adapter, below: Below::Model(Box::new(base)), touches, tensors, kept: Mutex::default() }))
    }

    /// Puts `adapter` over zeros of the tensors `names`, with their keys and shapes.
    ///
    /// # Errors
    /// A module of another shape.
    pub fn alone(adapter: Adapter, names: &[(String, Vec<u64>)], keys: &[String]) -> Result<Arc<Self>> {
        let mut touches = vec![Touch::None; names.len()];
        for (number, pair) in adapter.pairs.iter().enumerate() {
            let place = keys.iter().position(|key| *key == pair.key).expect("names are the union of all");
            if names[place].1 != pair.shape {
                return Err(Error::input(format!(
                    "module `{}` changes a weight of {:?} in `{}`, and one of {:?} in another model",
                    shown(&pair.module),
                    pair.shape,
                    shown(adapter.raw.name()),
                    names[place].1
                ))
                .hint("they were trained on different bases, and cannot be merged"));
            }
            touches[place] = Touch::Pair { pair: number, transposed: false, base: None };
        }
        let info = |(name, shape): &(String, Vec<u64>)| TensorInfo::computed(name.clone(), shape.clone());
        let tensors = names.iter().map(info).collect();
        Ok(Arc::new(Self { adapter, below: Below::Zeros, touches, tensors, kept: Mutex::default() }))
    }

    /// The checkpoint that it makes.
    pub fn checkpoint(self: &Arc<Self>, name: &str) -> Checkpoint {
        let opened = Checkpoint::computed(name, self.tensors.clone(), Box::new(self.clone()));
        opened.with_files_of(
            &self.adapter.raw,
            match &self.below {
                Below::Model(base) => Some(&**base),
                Below::Zeros => None,
            },
        )
    }

    /// What the adapter does to tensor `tensor`.
    pub fn touch(&self, tensor: usize) -> Touch {
        self.touches.get(tensor).copied().unwrap_or(Touch::None)
    }

    /// Names of the tensors that the adapter changes.
    pub fn touched(&self) -> impl Iterator<Item = &str> {
        let both = self.tensors.iter().zip(&self.touches);
        both.filter(|(_, touch)| **touch != Touch::None).map(|(tensor, _)| tensor.name.as_str())
    }

    fn factors(&self, tensor: usize, pair: usize, transposed: bool) -> Result<Arc<Factors>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|(known, _)| *known == tensor) {
            let entry = kept.remove(at);
            let factors = entry.1.clone();
            kept.push(entry);
            return Ok(factors);
        }
        let factors = Arc::new(self.adapter.factors(&self.adapter.pairs[pair], transposed)?);
        kept.push((tensor, factors.clone()));
        let mut bytes: usize = kept.iter().map(|(_, factors)| factors.bytes()).sum();
        while bytes > KEPT && kept.len() > 1 {
            bytes -= kept.remove(0).1.bytes();
        }
        Ok(factors)
    }

    /// Elements from `start` on, as f32.
    fn fill(&self, tensor: usize, start: u64, factors: &Factors, base: Option<usize>, out: &mut [f32]) -> Result<()> {
        let (source, number) = match (base, &self.below) {
            (Some(own), _) => (&self.adapter.raw, own),
            (None, Below::Model(model)) => (&**model, tensor),
            (None, Below::Zeros) => {
                out.fill(0.0);
                factors.add(start, out);
                return Ok(());
            }
        };
        let dtype: Dtype = source.tensors()[number].dtype;
        let mut words = stored(dtype, out.len());
        let bytes: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut words)[..out.len() * dtype.size()];
        source.read_at(number, start * dtype.size() as u64, bytes)?;
        widen(dtype, bytes, 0, out);
        factors.add(start, out);
        Ok(())
    }
}

impl Overlay for Arc<Layer> {
    fn read_at(&self, tensor: usize, offset: u64, buf: &mut [u8]) -> Result<()> {
        match (self.touch(tensor), &self.below) {
            (Touch::Whole(own), _) => self.adapter.raw.read_at(own, offset, buf),
            (Touch::None, Below::Model(base)) => base.read_at(tensor, offset, buf),
            (Touch::None, Below::Zeros) => {
                buf.fill(0);
                Ok(())
            }
            (Touch::Pair { pair, transposed, base }, _) => {
                let factors = self.factors(tensor, pair, transposed)?;
                // Whole elements, of which the first and the last may stick out.
                let (mut at, mut done) = (offset, 0);
                let mut values = Vec::new();
                while done < buf.len() {
                    let (first, skip) = (at / 4, (at % 4) as usize);
                    let count = (buf.len() - done + skip).div_ceil(4).min(PIECE);
                    values.resize(count, 0.0);
                    self.fill(tensor, first, &factors, base, &mut values)?;
                    let bytes: &[u8] = &bytemuck::cast_slice::<f32, u8>(&values)[skip..];
                    let length = bytes.len().min(buf.len() - done);
                    buf[done..done + length].copy_from_slice(&bytes[..length]);
                    (at, done) = (at + length as u64, done + length);
                }
                Ok(())
            }
        }
    }

    fn below(&self, tensor: usize) -> Option<&Checkpoint> {
        match (self.touch(tensor), &self.below) {
            (Touch::None, Below::Model(base)) => Some(base),
            _ => None,
        }
    }

    fn read_from(&self) -> Vec<&Checkpoint> {
        match &self.below {
            Below::Model(base) => vec![&self.adapter.raw, base],
            Below::Zeros => vec![&self.adapter.raw],
        }
    }
}

/// Tensors of a base that a name may mean.
enum Found {
    One(usize),
    Several(Vec<String>),
    Nothing,
}

/// The tensor called `name`, or the only one that has more or less before it.
fn find(base: &Checkpoint, name: &str) -> Found {
    if let Some((place, _)) = base.get(name) {
        return Found::One(place);
    }
    let ends = |long: &str, short: &str| long.strip_suffix(short).is_some_and(|rest| rest.ends_with('.'));
    let tensors = base.tensors().iter().enumerate();
    let like: Vec<usize> =
        tensors.filter(|(_, t)| ends(&t.name, name) || ends(name, &t.name)).map(|(place, _)| place).collect();
    match like[..] {
        [one] => Found::One(one),
        [] => Found::Nothing,
        _ => Found::Several(like.iter().map(|place| base.tensors()[*place].name.clone()).collect()),
    }
}

/// The tensor of the base that a pair changes.
fn place(adapter: &Adapter, pair: &Pair, base: &Checkpoint) -> Result<usize> {
    let name = format!("{}.weight", pair.module);
    let (module, at, below) = (shown(&pair.module), shown(adapter.raw.name()), shown(base.name()));
    let tied = pair.module.ends_with("lm_head") || pair.module.ends_with("embed_out");
    let error = match find(base, &name) {
        Found::One(place) => return Ok(place),
        _ if adapter.form == Form::File => {
            let what = format!("`{at}` is a LoRA file of a diffusion tool, which is merged without a base");
            return Err(Error::usage(what).hint("leave `--base` out: such files are merged with each other"));
        }
        Found::Several(names) => {
            let names = crate::checkpoint::text::list(names.iter().map(String::as_str), 4);
            Error::input(format!("module `{module}` of `{at}` could be any of {names} in `{below}`"))
        }
        Found::Nothing => {
            let error = Error::input(format!("module `{module}` of `{at}` is not in `{below}`"));
            match tied {
                true => error,
                false => error.hint("versions of transformers name modules differently: save both with the same one"),
            }
        }
    };
    let names = base.tensors().iter().map(|tensor| tensor.name.as_str());
    Err(match nearest(&name, names) {
        _ if tied => error
            .hint("its output head is the embedding itself: save the base with a head of its own (`tie_word_embeddings: false`)"),
        Some(near) => error.hint(format!("the nearest tensor is `{}`: was it trained on another base?", shown(near))),
        None => error.hint("it was trained on another base: name that one as the base"),
    })
}
