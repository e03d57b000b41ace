//! Which tensors a pickled model has, under the names that `state_dict()` would give them.
//!
//! A model is a dict of tensors; or such a dict in a dict, or in an object, under one of the names that training
//! programs use; or a whole `nn.Module`. Of a module, parameters, buffers and modules below it are read where
//! `nn.Module` keeps them. What its class makes of them in a `state_dict()` of its own is not known here.

use std::collections::HashSet;

use super::pickle::{Id, Node, Pickle};
use super::tensor::{Tensor, is_tensor, tensor, what};
use crate::checkpoint::header::check_name;
use crate::checkpoint::text::{list, shown};
use crate::error::{Error, Result};

/// Names under which programs save a model.
const WRAPPERS: [&str; 7] = ["state_dict", "model_state_dict", "model_state", "model", "module", "net", "network"];
/// Most such names on the way to a model.
const MAX_WRAPPERS: usize = 4;
/// What is spent on names and values before a file is refused: bytes of names, and about those of what is known of a
/// tensor. A few shared modules can have more names than there is memory.
const BUDGET: usize = 64 << 20;
/// Bytes of what is known of a tensor, and of a module that is still to be read, besides its name.
const TENSOR: usize = 200;
const MODULE: usize = 64;

/// What to do about a file that holds no model, or more than one.
const SAVE: &str = "save the model's `state_dict()` alone, with `torch.save` or as safetensors";

/// Most values beside a model that are looked at for another.
const MAX_BESIDE: usize = 8;

/// Tensors by name.
pub type Tensors<'a> = Vec<(String, Tensor<'a>)>;

/// The tensors of the model in `pickle`, in no order, and under which names beside it there are others of most of the same
/// names, such as their averages.
///
/// # Errors
/// No model, more than one, something in the place of a tensor that is none, a tensor that cannot be read.
pub fn tensors<'a>(pickle: &Pickle<'a>) -> Result<(Tensors<'a>, Vec<String>)> {
    let (mut model, mut beside) = (pickle.root, Vec::new());
    let mut walk = Walk { pickle, found: Vec::new(), left: BUDGET };
    for _ in 0..=MAX_WRAPPERS {
        if is_module(pickle, model) {
            walk.module(model)?;
            return Ok(walk.with_others(&beside));
        }
        let Some(pairs) = attributes(pickle, model) else {
            let what = match is_tensor(pickle, model) {
                true => "a tensor without a name".into(),
                false => what(pickle, model),
            };
            return Err(Error::input(format!("it is of {what}, not of a model")).hint(SAVE));
        };
        match inner(pickle, pairs)? {
            Some(inner) => {
                let others = pairs.iter().filter(|(_, id)| *id != inner && attributes(pickle, *id).is_some());
                beside.extend(others.filter_map(|(name, id)| Some((pickle.text(*name)?, *id))));
                model = inner;
            }
            None => {
                walk.state_dict(pairs)?;
                return Ok(walk.with_others(&beside));
            }
        }
    }
    Err(Error::input("it has dicts in dicts in dicts, and no model").hint(SAVE))
}

/// What a dict or an object holds by name.
fn attributes<'p>(pickle: &'p Pickle<'_>, id: Id) -> Option<&'p [(Id, Id)]> {
    match *pickle.node(id) {
        Node::Object { state: Some(state), .. } => pickle.pairs(state),
        _ => pickle.pairs(id),
    }
}

fn is_object(pickle: &Pickle<'_>, id: Id) -> bool {
    matches!(pickle.node(id), Node::Object { .. })
}

fn get(pickle: &Pickle<'_>, pairs: &[(Id, Id)], name: &str) -> Option<Id> {
    // The last of two is the one that Python keeps.
    pairs.iter().rev().find(|(key, _)| pickle.text(*key) == Some(name)).map(|(_, value)| *value)
}

/// True for an object that has what every `nn.Module` has.
fn is_module(pickle: &Pickle<'_>, id: Id) -> bool {
    let Node::Object { state: Some(state), .. } = *pickle.node(id) else { return false };
    let has = |name| pickle.pairs(state).and_then(|pairs| get(pickle, pairs, name)).is_some();
    has("_parameters") && has("_modules")
}

/// The model that `pairs` hold under one of the usual names, `None` if they hold tensors themselves.
fn inner(pickle: &Pickle<'_>, pairs: &[(Id, Id)]) -> Result<Option<Id>> {
    let holds = |value: Id| attributes(pickle, value).is_some() && has_storage(pickle, value, &mut HashSet::new());
    let wrapped = WRAPPERS.into_iter().filter_map(|name| Some((name, get(pickle, pairs, name)?)));
    let models: Vec<(&str, Id)> = wrapped.filter(|(_, value)| holds(*value)).collect();
    let mut direct = pairs.iter().map(|(_, value)| *value).filter(|value| is_tensor(pickle, *value));
    match &models[..] {
        [] if direct.next().is_some() => Ok(None),
        [] => {
            let mut seen = HashSet::new();
            let named = pairs.iter().filter_map(|(key, value)| Some((pickle.text(*key)?, *value)));
            let others: Vec<(&str, Id)> = named.filter(|(_, value)| has_storage(pickle, *value, &mut seen)).collect();
            if others.is_empty() {
                return Err(Error::input("it holds no tensor").hint(SAVE));
            }
            // What is made of tensors by a call that is not known stands where a tensor should.
            if others.iter().any(|(_, value)| attributes(pickle, *value).is_none() && is_object(pickle, *value)) {
                return Ok(None);
            }
            let names = list(others.iter().map(|(name, _)| *name), 4);
            Err(Error::input(format!("its tensors are below {names}, none of which is a usual name")).hint(SAVE))
        }
        [(_, first), rest @ ..] => {
            let beside = if direct.any(|id| is_weight(pickle, id)) { " and tensors beside it" } else { "" };
            if rest.iter().all(|(_, value)| value == first) && beside.is_empty() {
                return Ok(Some(*first));
            }
            let names = list(models.iter().map(|(name, _)| *name), 4);
            Err(Error::input(format!("it holds more than one model: {names}{beside}")).hint(SAVE))
        }
    }
}

/// False for the tensors that programs save beside a model: counters, states of random numbers, other single numbers.
fn is_weight(pickle: &Pickle<'_>, id: Id) -> bool {
    tensor(pickle, id).map_or(true, |tensor| tensor.dtype.is_float() && !tensor.shape.is_empty())
}

/// True if a storage can be reached from `from` by nodes that are not among `seen`, which it adds.
fn has_storage(pickle: &Pickle<'_>, from: Id, seen: &mut HashSet<Id>) -> bool {
    let mut next = vec![from];
    while let Some(id) = next.pop() {
        if !seen.insert(id) {
            continue;
        }
        match pickle.node(id) {
            Node::Persistent(_) => return true,
            Node::Items(items) => next.extend(items),
            Node::Dict(pairs) => next.extend(pairs.iter().map(|(_, value)| value)),
            Node::Object { args, state, .. } => next.extend(state.iter().chain([args])),
            _ => {}
        }
    }
    false
}

/// Collects tensors, and counts what that costs.
struct Walk<'p, 'a> {
    pickle: &'p Pickle<'a>,
    found: Tensors<'a>,
    left: usize,
}

impl<'p, 'a> Walk<'p, 'a> {
    fn spend(&mut self, cost: usize) -> Result<()> {
        self.left =
            self.left.checked_sub(cost).ok_or_else(|| Error::input("its model has too many or too long names"))?;
        Ok(())
    }

    /// What was found, and which of `beside` hold tensors of most of its names, perhaps below one name more.
    fn with_others(mut self, beside: &[(&str, Id)]) -> (Tensors<'a>, Vec<String>) {
        let model = std::mem::take(&mut self.found);
        let names: HashSet<&str> = model.iter().map(|(name, _)| name.as_str()).collect();
        let same =
            |name: &str| names.contains(name) || name.split_once('.').is_some_and(|(_, name)| names.contains(name));
        let mut others = Vec::new();
        for &(name, id) in beside.iter().take(MAX_BESIDE) {
            // What is no tensor only ends the look.
            let _ = match is_module(self.pickle, id) {
                true => self.module(id),
                false => self.state_dict(attributes(self.pickle, id).unwrap_or_default()),
            };
            let found = std::mem::take(&mut self.found);
            if 2 * found.iter().filter(|(name, _)| same(name)).count() > names.len() {
                others.push(name.to_owned());
            }
        }
        (model, others)
    }

    /// Adds tensor `id`.
    fn add(&mut self, name: String, id: Id) -> Result<()> {
        self.spend(name.len() + TENSOR)?;
        check_name(&name).map_err(Error::input)?;
        let named = |what: &str| format!("tensor `{}` {what}", shown(&name));
        let tensor = tensor(self.pickle, id).map_err(|error| error.within(named))?;
        self.found.push((name, tensor));
        Ok(())
    }

    /// Adds what a dict of tensors holds. Values that are no tensors and hold none are no part of a model.
    fn state_dict(&mut self, pairs: &'p [(Id, Id)]) -> Result<()> {
        let pickle = self.pickle;
        let mut seen = HashSet::new();
        for &(key, value) in pairs {
            if !is_object(pickle, value) && !has_storage(pickle, value, &mut seen) {
                continue;
            }
            let Some(name) = pickle.text(key) else {
                return Err(Error::input(format!("the name of a tensor is {}, not a string", what(pickle, key))));
            };
            self.add(name.to_owned(), value)?;
        }
        Ok(())
    }

    /// Adds what the module `root` and those below it hold.
    fn module(&mut self, root: Id) -> Result<()> {
        let mut next = vec![(String::new(), root)];
        while let Some((prefix, module)) = next.pop() {
            if !is_module(self.pickle, module) {
                let (name, what) = (shown(prefix.trim_end_matches('.')), what(self.pickle, module));
                return Err(Error::input(format!("module `{name}` is {what}, and no `nn.Module`")).hint(SAVE));
            }
            let pairs = attributes(self.pickle, module).unwrap_or_default();
            let temporary = self.names(pairs)?;
            for (kind, leaves) in [("_parameters", true), ("_buffers", true), ("_modules", false)] {
                for &(key, value) in self.below(pairs, kind)? {
                    let Some(name) = self.pickle.text(key) else {
                        return Err(Error::input(format!(
                            "`{kind}` of `{}` has a key that is no string",
                            shown(&prefix)
                        )));
                    };
                    let absent = matches!(self.pickle.node(value), Node::None);
                    if absent || kind == "_buffers" && temporary.contains(name) {
                        continue;
                    }
                    if leaves {
                        self.add(prefix.clone() + name, value)?;
                    } else {
                        self.spend(prefix.len() + name.len() + MODULE)?;
                        next.push((format!("{prefix}{name}."), value));
                    }
                }
            }
        }
        Ok(())
    }

    /// The dict `name` among `pairs`, which may lack it.
    fn below(&mut self, pairs: &[(Id, Id)], name: &str) -> Result<&'p [(Id, Id)]> {
        let Some(id) = get(self.pickle, pairs, name) else { return Ok(&[]) };
        let below = self.pickle.pairs(id).ok_or_else(|| Error::input(format!("`{name}` of a module is no dict")))?;
        self.spend(pairs.len() + below.len())?;
        Ok(below)
    }

    /// Names of the buffers that a `state_dict()` leaves out: a set, or the call that makes one.
    fn names(&mut self, pairs: &[(Id, Id)]) -> Result<HashSet<&'p str>> {
        let Some(set) = get(self.pickle, pairs, "_non_persistent_buffers_set") else { return Ok(HashSet::new()) };
        let items = match self.pickle.call(set) {
            Some((("builtins" | "__builtin__", "set"), &[])) => Some(&[][..]),
            Some((("builtins" | "__builtin__", "set"), &[items])) => self.pickle.items(items),
            _ => self.pickle.items(set),
        };
        let items = items.ok_or_else(|| Error::input("`_non_persistent_buffers_set` of a module is no set"))?;
        self.spend(pairs.len() + items.len())?;
        Ok(items.iter().filter_map(|item| self.pickle.text(*item)).collect())
    }
}
