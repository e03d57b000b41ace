//! Pickles, read as data. Python runs a pickle: it imports what the pickle names and calls it with what the pickle
//! says. Here nothing is imported or called, and there is no other way to read one: a name stays a name, a call becomes
//! a node that says what would have been called with what.
//!
//! Nodes lie in one list and name each other by their numbers. So a value that is used a million times costs what it
//! costs once, a value that holds itself is nothing special, and no walk or drop goes deeper than the stack.

use crate::error::{Error, Result};

/// Longest pickle in bytes.
pub const MAX_PICKLE: u64 = 64 << 20;
/// Most nodes: those of about a hundred thousand tensors.
const MAX_NODES: usize = 2 << 20;
/// Most instructions.
const MAX_STEPS: usize = 8 << 20;
/// Longest line of an instruction that has lines.
const MAX_LINE: usize = 4096;

/// Number of a node.
pub type Id = u32;

/// A value.
#[derive(Debug)]
pub enum Node<'a> {
    /// `None`.
    None,
    /// A whole number of at most 64 bits.
    Int(i64),
    /// A string.
    Text(&'a str),
    /// Booleans, other numbers, bytes and whatever else is never needed.
    Opaque,
    /// A name in a Python module: the texts of both.
    Global(Id, Id),
    /// A tuple, a list or a set.
    Items(Vec<Id>),
    /// Keys and values, in the order in which they were set.
    Dict(Vec<(Id, Id)>),
    /// What the pickle does not hold itself, by what names it.
    Persistent(Id),
    /// What a call of `class` with `args` would be, or an object of `class`.
    Object {
        /// What would be called.
        class: Id,
        /// What with.
        args: Id,
        /// What the object would then be given as its state.
        state: Option<Id>,
    },
}

/// A pickle that has been read.
#[derive(Debug)]
pub struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    /// The value that the pickle is of.
    pub root: Id,
}

impl<'a> Pickle<'a> {
    /// Reads `bytes`, all of which must be one pickle of protocol 2 to 5.
    ///
    /// # Errors
    /// Bytes that are no such pickle, or more of them than any model needs. The message says where.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let mut machine = Machine { rest: bytes, ..Machine::default() };
        match machine.run() {
            Ok(root) => Ok(Self { nodes: machine.nodes, root }),
            Err(what) => {
                let at = bytes.len() - machine.rest.len();
                Err(Error::input(format!("bad pickle, before byte {at} of `data.pkl`: {what}")))
            }
        }
    }

    /// Node number `id`.
    pub fn node(&self, id: Id) -> &Node<'a> {
        &self.nodes[id as usize]
    }

    /// The string that `id` is.
    pub fn text(&self, id: Id) -> Option<&'a str> {
        if let Node::Text(text) = *self.node(id) { Some(text) } else { None }
    }

    /// The whole number that `id` is, if it is not negative.
    pub fn size(&self, id: Id) -> Option<u64> {
        if let Node::Int(number) = *self.node(id) { u64::try_from(number).ok() } else { None }
    }

    /// What the tuple, list or set `id` holds.
    pub fn items(&self, id: Id) -> Option<&[Id]> {
        if let Node::Items(items) = self.node(id) { Some(items) } else { None }
    }

    /// Keys and values of the dict `id`.
    pub fn pairs(&self, id: Id) -> Option<&[(Id, Id)]> {
        if let Node::Dict(pairs) = self.node(id) { Some(pairs) } else { None }
    }

    /// Module and name of the global `id`.
    pub fn global(&self, id: Id) -> Option<(&'a str, &'a str)> {
        if let Node::Global(module, name) = *self.node(id) { self.text(module).zip(self.text(name)) } else { None }
    }

    /// What would be called for the object `id`, and what with.
    pub fn call(&self, id: Id) -> Option<((&'a str, &'a str), &[Id])> {
        let Node::Object { class, args, .. } = *self.node(id) else { return None };
        self.global(class).zip(self.items(args))
    }
}

/// What the instructions of a pickle work on.
#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    nodes: Vec<Node<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at which groups of values begin. What lies below the last is out of reach.
    marks: Vec<usize>,
    memo: Vec<Id>,
}

/// What is wrong, without the place.
type Step<T> = std::result::Result<T, String>;

impl<'a> Machine<'a> {
    fn run(&mut self) -> Step<Id> {
        match self.bytes(2)? {
            [0x80, 2..=5] => {}
            [0x80, protocol] => return Err(format!("its protocol is {protocol}, and 2 to 5 are read")),
            _ => return Err("it does not begin with its protocol".into()),
        }
        for _ in 0..MAX_STEPS {
            let instruction = self.bytes(1)?[0];
            if instruction == b'.' {
                let root = self.pop()?;
                return match (self.rest.len(), self.stack.len() + self.marks.len()) {
                    (0, 0) => Ok(root),
                    (0, _) => Err("it ends before its value is whole".into()),
                    (more, _) => Err(format!("{more} bytes follow its end")),
                };
            }
            self.step(instruction)?;
        }
        Err(format!("more than {MAX_STEPS} instructions"))
    }

    /// Does what one instruction says, in the order of Python's `pickle.py`.
    fn step(&mut self, instruction: u8) -> Step<()> {
        match instruction {
            0x95 => {
                let frame = self.number(8)?;
                if frame > self.rest.len() as u64 {
                    return Err(format!("a frame of {frame} bytes is cut off"));
                }
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.group()?),
            b'2' => self.stack.push(self.top()?),

            b'N' => self.push(Node::None)?,
            0x88 | 0x89 => self.push(Node::Opaque)?,
            b'J' => {
                let number = self.number(4)? as u32;
                self.push(Node::Int(i64::from(number.cast_signed())))?;
            }
            b'K' => self.int(1)?,
            b'M' => self.int(2)?,
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'G' => self.opaque(8)?,

            b'U' | 0x8c => self.string(1)?,
            b'T' | b'X' => self.string(4)?,
            0x8d => self.string(8)?,
            b'C' => self.counted(1)?,
            b'B' => self.counted(4)?,
            0x8e | 0x96 => self.counted(8)?,

            b')' | b']' | 0x8f => self.push(Node::Items(Vec::new()))?,
            b't' | b'l' | 0x91 => {
                let items = self.group()?;
                self.push(Node::Items(items))?;
            }
            0x85 => self.tuple::<1>()?,
            0x86 => self.tuple::<2>()?,
            0x87 => self.tuple::<3>()?,
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.group()?;
                self.extend(&items)?;
            }

            b'}' => self.push(Node::Dict(Vec::new()))?,
            b'd' => {
                let items = self.group()?;
                self.push(Node::Dict(Vec::new()))?;
                self.set(&items)?;
            }
            b's' => {
                let pair = self.take::<2>()?;
                self.set(&pair)?;
            }
            b'u' => {
                let items = self.group()?;
                self.set(&items)?;
            }

            b'c' => {
                let global = self.global()?;
                self.stack.push(global);
            }
            0x93 => {
                let [module, name] = self.take()?;
                self.push(Node::Global(module, name))?;
            }
            0x82..=0x84 => self.opaque(1 << (instruction - 0x82))?,
            b'R' | 0x81 => {
                let [class, args] = self.take()?;
                self.object(class, args)?;
            }
            0x92 => {
                let [class, args, _] = self.take()?;
                self.object(class, args)?;
            }
            b'i' => {
                let (class, args) = (self.global()?, self.group()?);
                let args = self.add(Node::Items(args))?;
                self.object(class, args)?;
            }
            b'o' => {
                let mut args = self.group()?;
                if args.is_empty() {
                    return Err(UNDERFLOW.into());
                }
                let class = args.remove(0);
                let args = self.add(Node::Items(args))?;
                self.object(class, args)?;
            }
            b'b' => {
                let given = self.pop()?;
                let top = self.top()?;
                // State of anything else, such as the version numbers of an OrderedDict, is not needed.
                if let Node::Object { state, .. } = &mut self.nodes[top as usize] {
                    *state = Some(given);
                }
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Persistent(id))?;
            }

            b'h' => self.recall(1)?,
            b'j' => self.recall(4)?,
            b'q' => self.remember(1)?,
            b'r' => self.remember(4)?,
            0x94 => self.memo.push(self.top()?),

            _ => return Err(format!("instruction {instruction:#04x}, which `torch.save` does not write")),
        }
        Ok(())
    }

    fn bytes(&mut self, n: u64) -> Step<&'a [u8]> {
        let split = usize::try_from(n).ok().and_then(|n| self.rest.split_at_checked(n));
        let (taken, rest) = split.ok_or_else(|| format!("{n} bytes should follow, and {} do", self.rest.len()))?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: u64) -> Step<u64> {
        Ok(self.bytes(bytes)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn line(&mut self) -> Step<&'a str> {
        let end = self.rest.iter().take(MAX_LINE).position(|byte| *byte == b'\n').ok_or("a line without end")?;
        let line = self.bytes(end as u64 + 1)?;
        std::str::from_utf8(&line[..end]).map_err(|_| "a line that is not UTF-8".into())
    }

    fn add(&mut self, node: Node<'a>) -> Step<Id> {
        if self.nodes.len() == MAX_NODES {
            return Err(format!("more than {MAX_NODES} values"));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() as Id - 1)
    }

    fn push(&mut self, node: Node<'a>) -> Step<()> {
        let id = self.add(node)?;
        self.stack.push(id);
        Ok(())
    }

    fn int(&mut self, bytes: u64) -> Step<()> {
        let number = self.number(bytes)? as i64;
        self.push(Node::Int(number))
    }

    /// A whole number of any length, little end first, whose highest bit is its sign.
    fn long(&mut self, width: u64) -> Step<()> {
        let len = self.number(width)?;
        let bytes = self.bytes(len)?;
        if bytes.len() > 8 {
            return self.push(Node::Opaque);
        }
        let sign = if bytes.last().is_some_and(|byte| *byte > 0x7f) { 0xff } else { 0 };
        let mut number = [sign; 8];
        number[..bytes.len()].copy_from_slice(bytes);
        self.push(Node::Int(i64::from_le_bytes(number)))
    }

    /// A string after its length. Python has strings that are not UTF-8; none of them is a name that is needed.
    fn string(&mut self, width: u64) -> Step<()> {
        let len = self.number(width)?;
        let text = std::str::from_utf8(self.bytes(len)?);
        self.push(text.map_or(Node::Opaque, Node::Text))
    }

    fn counted(&mut self, width: u64) -> Step<()> {
        let len = self.number(width)?;
        self.opaque(len)
    }

    fn opaque(&mut self, bytes: u64) -> Step<()> {
        self.bytes(bytes)?;
        self.push(Node::Opaque)
    }

    fn global(&mut self) -> Step<Id> {
        let (module, name) = (self.line()?, self.line()?);
        let (module, name) = (self.add(Node::Text(module))?, self.add(Node::Text(name))?);
        self.add(Node::Global(module, name))
    }

    fn object(&mut self, class: Id, args: Id) -> Step<()> {
        let text = |id: Id| if let Node::Text(text) = self.nodes[id as usize] { Some(text) } else { None };
        let global = match self.nodes[class as usize] {
            Node::Global(module, name) => text(module).zip(text(name)),
            _ => None,
        };
        let empty = matches!(&self.nodes[args as usize], Node::Items(items) if items.is_empty());
        match empty && global == Some(("collections", "OrderedDict")) {
            true => self.push(Node::Dict(Vec::new())),
            false => self.push(Node::Object { class, args, state: None }),
        }
    }

    fn top(&self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..].last().copied().ok_or_else(|| UNDERFLOW.into())
    }

    fn pop(&mut self) -> Step<Id> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// The last `N` values.
    fn take<const N: usize>(&mut self) -> Step<[Id; N]> {
        let mut taken = [0; N];
        for place in taken.iter_mut().rev() {
            *place = self.pop()?;
        }
        Ok(taken)
    }

    fn tuple<const N: usize>(&mut self) -> Step<()> {
        let items = self.take::<N>()?;
        self.push(Node::Items(items.into()))
    }

    /// All values above the last mark.
    fn group(&mut self) -> Step<Vec<Id>> {
        let from = self.marks.pop().ok_or("the end of a group that did not begin")?;
        Ok(self.stack.split_off(from))
    }

    /// Puts `items` into the list below. Those of an object are not needed.
    fn extend(&mut self, items: &[Id]) -> Step<()> {
        let top = self.top()?;
        match &mut self.nodes[top as usize] {
            Node::Items(list) => list.extend_from_slice(items),
            Node::Object { .. } => {}
            _ => return Err("items for what is no list".into()),
        }
        Ok(())
    }

    /// Puts keys and values into the dict below. Those of an object are not needed.
    fn set(&mut self, items: &[Id]) -> Step<()> {
        let top = self.top()?;
        if !items.len().is_multiple_of(2) {
            return Err("a key without a value".into());
        }
        match &mut self.nodes[top as usize] {
            Node::Dict(pairs) => pairs.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            Node::Object { .. } => {}
            _ => return Err("keys for what is no dict".into()),
        }
        Ok(())
    }

    fn recall(&mut self, width: u64) -> Step<()> {
        let number = self.number(width)?;
        let id = self.memo.get(number as usize).ok_or_else(|| format!("nothing is kept under number {number}"))?;
        self.stack.push(*id);
        Ok(())
    }

    /// Keeps the last value. Numbers are given in their order, so that a large one takes no room.
    fn remember(&mut self, width: u64) -> Step<()> {
        let (number, top) = (self.number(width)? as usize, self.top()?);
        match self.memo.len() {
            known if number < known => self.memo[number] = top,
            known if number == known => self.memo.push(top),
            known => return Err(format!("a value is kept under number {number}, the first after {known}")),
        }
        Ok(())
    }
}

/// What an instruction says that lacks what it works on.
const UNDERFLOW: &str = "an instruction without the values that it works on";
