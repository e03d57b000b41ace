//! Pickles in pieces: each function gives the instructions that leave one value on the stack.

/// Instructions.
pub type Code = Vec<u8>;

/// A whole pickle of a value.
pub fn pickle(value: &[u8]) -> Code {
    [b"\x80\x02", value, b"."].concat()
}

pub fn none() -> Code {
    b"N".to_vec()
}

pub fn text(text: &str) -> Code {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

pub fn int(number: i64) -> Code {
    [b"\x8a\x08", &number.to_le_bytes()[..]].concat()
}

pub fn global(module: &str, name: &str) -> Code {
    format!("c{module}\n{name}\n").into_bytes()
}

pub fn tuple(items: &[Code]) -> Code {
    [b"(", &items.concat()[..], b"t"].concat()
}

pub fn list(items: &[Code]) -> Code {
    [b"](", &items.concat()[..], b"e"].concat()
}

pub fn dict(pairs: &[(Code, Code)]) -> Code {
    let items: Code = pairs.iter().flat_map(|(key, value)| [key.as_slice(), value].concat()).collect();
    [b"}(", &items[..], b"u"].concat()
}

/// A dict whose keys are strings.
pub fn named(pairs: &[(&str, Code)]) -> Code {
    dict(&pairs.iter().map(|(name, value)| (text(name), value.clone())).collect::<Vec<_>>())
}

/// A call.
pub fn call(function: Code, args: &[Code]) -> Code {
    [function, tuple(args), b"R".to_vec()].concat()
}

/// An object of `class` with a state.
pub fn object(class: Code, state: Code) -> Code {
    [class, b")\x81".to_vec(), state, b"b".to_vec()].concat()
}

/// A module, and what else it holds.
pub fn module(parameters: &[(&str, Code)], modules: &[(&str, Code)], more: &[(&str, Code)]) -> Code {
    let own = [("_parameters", named(parameters)), ("_modules", named(modules))];
    object(global("torch.nn.modules.module", "Module"), named(&[&own, more].concat()))
}

pub fn storage(class: &str, key: &str, numel: i64) -> Code {
    let id = [text("storage"), global("torch", class), text(key), text("cpu"), int(numel)];
    [tuple(&id), b"Q".to_vec()].concat()
}

pub fn numbers(numbers: &[i64]) -> Code {
    tuple(&numbers.iter().map(|number| int(*number)).collect::<Vec<_>>())
}

/// A tensor over any storage.
pub fn over(storage: Code, offset: i64, size: &[i64], stride: &[i64]) -> Code {
    let hooks = call(global("collections", "OrderedDict"), &[]);
    let args = [storage, int(offset), numbers(size), numbers(stride), none(), hooks];
    call(global("torch._utils", "_rebuild_tensor_v2"), &args)
}

/// Strides of a tensor whose elements lie one after the other.
fn strides(size: &[i64]) -> Vec<i64> {
    (0..size.len()).map(|i| size[i + 1..].iter().product()).collect()
}

/// A tensor that has storage `key` for itself.
pub fn tensor(class: &str, key: &str, size: &[i64]) -> Code {
    over(storage(class, key, size.iter().product()), 0, size, &strides(size))
}
