//! What the calls of a launch do with the four elements that an invocation holds.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::frame::Frame;
use crate::checkpoint::Dtype;
use crate::kernel::Access;
use crate::recording::{Buf, Extent, Recording, Role, Size};

/// Planes that are read one by one.
pub const MANY: u32 = 17;

/// Most values that go into the uniform.
const FEW: u32 = 64;

/// What is done with each element in turn. A later phase sees what an earlier one has stored of the same row.
#[derive(Clone, Default)]
pub struct Phase {
    /// For each two quads, before them.
    pub loads: String,
    /// For the first of two quads, or for each where they do not go in pairs; and for the second.
    pub lines: [String; 2],
    /// Before the first.
    pub before: String,
    /// After the last.
    pub after: String,
    /// How many sums of results are of phases before.
    pub proved: usize,
}

/// The parts of a shader.
#[derive(Clone)]
pub struct Text {
    /// Names of the kernels.
    pub label: String,
    /// Texts of the kernels.
    pub functions: Vec<&'static str>,
    /// One for each time it goes over its extent.
    pub phases: Vec<Phase>,
    /// Storage buffers, and what they are arrays of.
    pub buffers: Vec<(Buf, Access, &'static str)>,
    /// Words of the uniform.
    pub params: Vec<u32>,
    /// Results whose words it sums, and where in the trailer of the proof the sums go.
    pub proved: Vec<(Buf, u32)>,
    /// What it goes over.
    pub extent: Extent,
    /// How.
    pub frame: Frame,
}

impl Text {
    /// The phase in the making.
    pub fn phase(&mut self) -> &mut Phase {
        self.phases.last_mut().expect("there is one from the start")
    }

    /// Storage buffers that the shader sees.
    pub fn bindings(&self) -> usize {
        self.buffers.len() + usize::from(!self.proved.is_empty())
    }
}

/// A body in the making.
#[derive(Clone)]
pub struct Body<'a> {
    /// What the calls are of.
    pub recording: &'a Recording,
    /// Buffers that are never in memory.
    unseen: &'a [bool],
    /// Where in the trailer of the proof the sums of results go that are stored here and nowhere else.
    slots: &'a [Option<u32>],
    /// What there is of it.
    pub text: Text,
    /// Variables that exist.
    pub known: BTreeSet<String>,
    /// Planes that registers hold.
    pub held: BTreeSet<(Buf, u32)>,
    /// Those of them that memory has yet to get.
    pub changed: BTreeSet<(Buf, u32)>,
    /// Calls so far.
    pub calls: usize,
    /// Whether rows are seen that others may have stored.
    pub far: bool,
}

impl<'a> Body<'a> {
    /// A body without calls.
    pub fn new(
        recording: &'a Recording,
        unseen: &'a [bool],
        slots: &'a [Option<u32>],
        extent: Extent,
        frame: Frame,
    ) -> Self {
        let text = Text {
            label: String::new(),
            functions: Vec::new(),
            phases: vec![Phase::default()],
            buffers: Vec::new(),
            params: Vec::new(),
            proved: Vec::new(),
            extent,
            frame,
        };
        let (known, held, changed) = Default::default();
        Self { recording, unseen, slots, text, known, held, changed, calls: 0, far: false }
    }

    /// The text, with what is to be in memory put there.
    pub fn finish(mut self) -> Text {
        self.keep();
        self.text
    }

    /// Begins the next phase.
    pub fn turn(&mut self) {
        self.keep();
        self.known.clear();
        self.held.clear();
        self.text.phases.push(Phase { proved: self.text.proved.len(), ..Phase::default() });
    }

    /// Puts what is to be in memory there.
    fn keep(&mut self) {
        for (buf, plane) in std::mem::take(&mut self.changed) {
            if self.unseen[buf.0] {
                continue;
            }
            let (name, first) = (self.bind_planes(buf, Access::Write), format!("{plane}u * p.dims.n + i"));
            if self.text.frame.whole {
                self.line(&format!("{name}[({first}) >> 2u] = r{}[{plane}];", buf.0));
            } else {
                for (j, c) in ["x", "y", "z", "w"].into_iter().enumerate() {
                    self.line(&format!("if exist.{c} {{ {name}[{first} + {j}u] = r{}[{plane}].{c}; }}", buf.0));
                }
            }
        }
    }

    /// A line for each quad.
    pub fn line(&mut self, line: &str) {
        self.lines(line, line);
    }

    /// A line for each of two quads.
    pub fn lines(&mut self, first: &str, second: &str) {
        for (lines, line) in self.text.phase().lines.iter_mut().zip([first, second]) {
            let _ = writeln!(lines, "            {line}");
        }
    }

    /// A line before two quads.
    pub fn load(&mut self, line: &str) {
        let _ = writeln!(self.text.phase().loads, "            {line}");
    }

    /// True the first time.
    pub fn first(&mut self, name: &str) -> bool {
        self.known.insert(name.to_owned())
    }

    /// The name of a buffer that is an array of `ty`.
    pub fn bind(&mut self, buf: Buf, ty: &'static str, access: Access) -> String {
        match self.text.buffers.iter_mut().find(|(bound, ..)| *bound == buf) {
            Some((_, bound, known)) => {
                let label = self.recording.buffers[buf.0].label;
                assert_eq!(*known, ty, "`{label}` is seen in two ways");
                if access == Access::Write {
                    *bound = access;
                }
            }
            None => self.text.buffers.push((buf, access, ty)),
        }
        format!("b{}", buf.0)
    }

    fn bind_planes(&mut self, buf: Buf, access: Access) -> String {
        self.bind(buf, if self.text.frame.whole { "vec4<f32>" } else { "f32" }, access)
    }

    /// Has a register for the planes of `buf`.
    pub fn declare(&mut self, buf: Buf) {
        if self.first(&format!("r{}", buf.0)) {
            let stack = match self.recording.buffers[buf.0].size {
                Size::Planes(count) if count != self.recording.planes => format!("array<vec4<f32>, {count}>"),
                _ => "Stack".to_owned(),
            };
            self.line(&format!("var r{}: {stack};", buf.0));
        }
    }

    /// Plane `plane` as it is in memory.
    fn in_memory(&mut self, buf: Buf, plane: &str) -> String {
        let name = self.bind_planes(buf, Access::Read);
        if self.text.frame.whole {
            return format!("{name}[({plane} * p.dims.n + i) >> 2u]");
        }
        spread("vec4<f32>", |c| format!("{name}[{plane} * p.dims.n + at.{c}]"))
    }

    /// Has plane `plane` in its register.
    pub fn hold(&mut self, buf: Buf, plane: u32) {
        self.declare(buf);
        // What is in memory nowhere was set before, or is not needed.
        if !self.held.insert((buf, plane)) || self.unseen[buf.0] {
            return;
        }
        let value = self.in_memory(buf, &format!("{plane}u"));
        self.line(&format!("r{}[{plane}] = {value};", buf.0));
    }

    /// Has the planes before `end` in registers: in a loop, which a driver compiles in a time that does not grow with them.
    pub fn hold_many(&mut self, buf: Buf, end: u32) {
        let known = (0..end).any(|plane| self.held.contains(&(buf, plane)));
        if known || self.unseen[buf.0] {
            return;
        }
        let value = self.in_memory(buf, "k");
        self.line(&format!("for (var k = 0u; k < {end}u; k++) {{ r{}[k] = {value}; }}", buf.0));
        self.held.extend((0..end).map(|plane| (buf, plane)));
    }

    /// What a buffer of stored elements is an array of, where four are read at a time, or eight of the small ones; and
    /// whether that is two numbers instead of four words.
    pub fn words_of(&self, dtype: Dtype) -> (&'static str, bool) {
        let Frame { pairs, wide, .. } = self.text.frame;
        match (dtype.size(), pairs) {
            (1, false) => ("u32", false),
            (1, true) | (2, false) => ("vec2<u32>", false),
            (2 | 4, _) if wide => ("vec2<u64>", true),
            _ => ("vec4<u32>", false),
        }
    }

    /// Parameter word `i` of the uniform, read once.
    pub fn word(&mut self, i: usize) -> String {
        let name = format!("word{i}");
        if self.first(&name) {
            let word = ["x", "y", "z", "w"][i % 4];
            let _ = writeln!(self.text.phase().before, "    let {name} = p.words[{}].{word};", i / 4);
        }
        name
    }

    /// Adds the words `names`, which are stored in `buf` from `first` on, to its sum.
    pub fn prove(&mut self, buf: Buf, dtype: Dtype, first: &str, names: &[String]) {
        let Some(slot) = self.slots[buf.0] else { return };
        let sum = format!("sum{}", buf.0);
        if self.first(&sum) {
            self.text.proved.push((buf, slot));
            let _ = writeln!(self.text.phase().before, "    var {sum} = 0u;");
        }
        let all = match dtype.size() {
            8 => "2u * p.dims.n",
            4 => "p.dims.n",
            2 => "((p.dims.n + 1u) >> 1u)",
            _ => "((p.dims.n + 3u) >> 2u)",
        };
        for (j, name) in names.iter().enumerate() {
            let index = format!("{first} + {j}u");
            let word = format!("mix({name}, {index}, epoch)");
            match self.text.frame.whole {
                true => self.line(&format!("{sum} += {word};")),
                false => self.line(&format!("{sum} += select(0u, {word}, {index} < {all});")),
            }
        }
    }

    /// Where the values of a small constant are in the uniform; they need no buffer.
    pub fn constant(&mut self, buf: Buf, count: u32) -> Option<usize> {
        let Role::Constant(words) = &self.recording.buffers[buf.0].role else { return None };
        let words = words.get(..count as usize).filter(|_| count <= FEW)?;
        let first = self.text.params.len();
        self.text.params.extend(words);
        Some(first)
    }
}

/// `ty(f(x), f(y), f(z), f(w))`.
pub fn spread(ty: &str, f: impl Fn(&str) -> String) -> String {
    format!("{ty}({})", ["x", "y", "z", "w"].map(f).join(", "))
}
