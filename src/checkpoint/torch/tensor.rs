//! What a pickled tensor says of itself: which bytes of which storage it is, in which type and shape.

use super::pickle::{Id, Node, Pickle};
use crate::checkpoint::dtype::Dtype;
use crate::checkpoint::header::{MAX_RANK, elements};
use crate::checkpoint::text::shown;
use crate::error::{Error, Result};

/// Names of PyTorch's classes of storages, of its types, and of those types in a safetensors header. In the order in
/// which safetensors files have them: the types of tensors of one size must keep it, for a merge to write what it
/// would have written of the same model in safetensors.
const TYPES: [(&str, &str, &str); 19] = [
    ("", "uint64", "U64"),
    ("LongStorage", "int64", "I64"),
    ("DoubleStorage", "float64", "F64"),
    ("ComplexFloatStorage", "complex64", "C64"),
    ("FloatStorage", "float32", "F32"),
    ("", "uint32", "U32"),
    ("IntStorage", "int32", "I32"),
    ("BFloat16Storage", "bfloat16", "BF16"),
    ("HalfStorage", "float16", "F16"),
    ("", "uint16", "U16"),
    ("ShortStorage", "int16", "I16"),
    ("", "float8_e5m2fnuz", "F8_E5M2FNUZ"),
    ("", "float8_e4m3fnuz", "F8_E4M3FNUZ"),
    ("", "float8_e8m0fnu", "F8_E8M0"),
    ("", "float8_e4m3fn", "F8_E4M3"),
    ("", "float8_e5m2", "F8_E5M2"),
    ("CharStorage", "int8", "I8"),
    ("ByteStorage", "uint8", "U8"),
    ("BoolStorage", "bool", "BOOL"),
];

/// Where tensors of `dtype` are in a safetensors file, among those of other types.
pub fn rank(dtype: Dtype) -> usize {
    TYPES.iter().position(|(_, _, name)| *name == dtype.header_name()).unwrap_or(TYPES.len())
}

/// A tensor, as its pickle describes it; nothing of it is checked against the file yet.
#[derive(Debug)]
pub struct Tensor<'a> {
    /// Type of its elements.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<u64>,
    /// Name of its storage.
    pub storage: &'a str,
    /// Bytes of that storage.
    pub storage_bytes: u64,
    /// First of its bytes there; all of them are there.
    pub begin: u64,
    /// Number of bytes.
    pub bytes: u64,
}

/// The functions of `torch._utils` that make a tensor.
fn rebuild<'p>(pickle: &'p Pickle<'_>, id: Id) -> Option<(&'p str, &'p [Id])> {
    const KNOWN: [&str; 5] = [
        "_rebuild_tensor",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v3",
        "_rebuild_parameter",
        "_rebuild_parameter_with_state",
    ];
    let ((module, name), args) = pickle.call(id)?;
    (module == "torch._utils" && KNOWN.contains(&name)).then_some((name, args))
}

/// True for what would be a tensor, if nothing is wrong with it.
pub fn is_tensor(pickle: &Pickle<'_>, id: Id) -> bool {
    rebuild(pickle, id).is_some()
}

fn bad(what: impl Into<String>) -> Error {
    Error::input(what)
}

/// The tensor that `id` would be.
///
/// # Errors
/// What is no tensor, or none that a safetensors file can hold. The message is to follow the tensor's name.
pub fn tensor<'a>(pickle: &Pickle<'a>, id: Id) -> Result<Tensor<'a>> {
    let call = match rebuild(pickle, id) {
        Some((name, [data, ..])) if name.starts_with("_rebuild_parameter") => rebuild(pickle, *data),
        call => call,
    };
    let (storage, dtype, offset, size, stride) = match call {
        Some(("_rebuild_tensor", &[storage, offset, size, stride])) => (storage, None, offset, size, stride),
        Some(("_rebuild_tensor_v2", &[storage, offset, size, stride, _, _, ref metadata @ ..])) => {
            plain(pickle, metadata)?;
            (storage, None, offset, size, stride)
        }
        Some(("_rebuild_tensor_v3", &[storage, offset, size, stride, _, _, dtype, ref metadata @ ..])) => {
            plain(pickle, metadata)?;
            (storage, Some(dtype), offset, size, stride)
        }
        Some((name, args)) => return Err(bad(format!("calls `{name}` with {} values", args.len()))),
        None => {
            let hint = "nothing in a file is run to make one: save a `state_dict()` of plain tensors";
            return Err(bad(format!("is {}, not a tensor", what(pickle, id))).hint(hint));
        }
    };
    let (class, storage, count) = persistent(pickle, storage)?;
    let dtype = match dtype {
        None => known(|(storage, _, _)| storage == class && !storage.is_empty(), class)?,
        Some(id) => match pickle.global(id) {
            Some(("torch", name)) => known(|(_, dtype, _)| dtype == name, name)?,
            _ => return Err(bad("has no type of PyTorch")),
        },
    };
    let width = u64::from(dtype.bits() / 8);
    let bytes = |elements: u64| elements.checked_mul(width).ok_or_else(|| bad("has more bytes than 64 bits can count"));
    let storage_bytes = if class == "UntypedStorage" { count } else { bytes(count)? };
    let offset = pickle.size(offset).ok_or_else(|| bad("has an offset that is none"))?;
    let (shape, stride) = (sizes(pickle, size, "dimensions")?, sizes(pickle, stride, "strides")?);
    let elements =
        elements(&shape).ok_or_else(|| bad(format!("{shape:?} has more elements than 64 bits can count")))?;
    if shape.len() != stride.len() {
        return Err(bad(format!("has {} dimensions and {} strides", shape.len(), stride.len())));
    }
    if elements > 0 && !is_contiguous(&shape, &stride) {
        return Err(bad(format!("is not contiguous: its shape is {shape:?}, and its strides are {stride:?}"))
            .hint("save it again after `.contiguous()`"));
    }
    let (begin, bytes) = (bytes(offset)?, bytes(elements)?);
    match begin.checked_add(bytes) {
        Some(end) if end <= storage_bytes => Ok(Tensor { dtype, shape, storage, storage_bytes, begin, bytes }),
        _ => Err(bad(format!("takes {bytes} bytes from byte {begin} on of a storage of {storage_bytes}"))),
    }
}

/// What `id` is, for messages.
pub fn what(pickle: &Pickle<'_>, id: Id) -> String {
    match pickle.node(id) {
        Node::None => "`None`".into(),
        Node::Int(_) => "a whole number".into(),
        Node::Text(_) => "a string".into(),
        Node::Opaque => "a number or bytes".into(),
        Node::Global(..) => "the name of something in Python".into(),
        Node::Items(_) => "a list".into(),
        Node::Dict(_) => "a dict".into(),
        Node::Persistent(_) => "a storage".into(),
        Node::Object { class, .. } => match pickle.global(*class) {
            Some((module, name)) => format!("an object of `{}.{}`", shown(module), shown(name)),
            None => "an object of no class".into(),
        },
    }
}

/// Checks that a tensor is not a view that changes its values.
fn plain(pickle: &Pickle<'_>, metadata: &[Id]) -> Result<()> {
    match metadata.iter().all(|id| match pickle.node(*id) {
        Node::None => true,
        Node::Dict(pairs) => pairs.is_empty(),
        _ => false,
    }) {
        true => Ok(()),
        false => Err(bad("is a view that negates or conjugates its values")
            .hint("save it again after `.resolve_neg()` and `.resolve_conj()`")),
    }
}

/// Class, name and number of elements of the storage `id`; of an untyped one, its bytes.
fn persistent<'a>(pickle: &Pickle<'a>, id: Id) -> Result<(&'a str, &'a str, u64)> {
    let id = if let Node::Persistent(id) = *pickle.node(id) { pickle.items(id) } else { None };
    let Some(&[kind, class, key, _, count]) = id else { return Err(bad("has no storage")) };
    match (pickle.text(kind), pickle.global(class), pickle.text(key), pickle.size(count)) {
        (Some("storage"), Some(("torch" | "torch.storage", class)), Some(key), Some(count)) => Ok((class, key, count)),
        _ => Err(bad("has a storage that is none of PyTorch")),
    }
}

/// The type whose row `is` it; `name` is its name.
fn known(is: impl Fn((&str, &str, &str)) -> bool, name: &str) -> Result<Dtype> {
    match TYPES.iter().find(|row| is(**row)) {
        Some((_, _, header)) => Ok(Dtype::from_header(header)),
        None => Err(bad(format!("is of type `torch.{}`, which no safetensors file has", shown(name)))),
    }
}

/// The whole numbers of a tuple, or of a `torch.Size` of one.
fn sizes(pickle: &Pickle<'_>, id: Id, what: &str) -> Result<Vec<u64>> {
    let id = match pickle.call(id) {
        Some((("torch", "Size"), &[inner])) => inner,
        _ => id,
    };
    let items = pickle.items(id).ok_or_else(|| bad(format!("has {what} that are none")))?;
    if items.len() > MAX_RANK {
        return Err(bad(format!("has more than {MAX_RANK} dimensions")));
    }
    let numbers = items.iter().map(|item| pickle.size(*item));
    numbers.collect::<Option<_>>().ok_or_else(|| bad(format!("has {what} that are none or are negative")))
}

/// True if the elements lie one after the other, the last dimension fastest. None of the dimensions is 0.
fn is_contiguous(shape: &[u64], stride: &[u64]) -> bool {
    let mut expected = 1;
    shape.iter().zip(stride).rev().all(|(&dim, &stride)| {
        let fits = dim == 1 || stride == expected;
        expected *= dim;
        fits
    })
}
