//! What the calls of a launch do with the four elements that an invocation holds.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::frame::Frame;
use crate::checkpoint::Dtype;
use crate::kernel::{Access, Form, Quad};
use crate::recording::{Buf, Call, Extent, Recording, Role, Size};

/// Planes that are read one by one.
pub const MANY: u32 = 17;

/// Most values that go into the uniform.
const FEW: u32 = 64;

/// The parts of a shader.
#[derive(Clone)]
pub struct Text {
    /// Names of the kernels.
    pub label: String,
    /// Texts of the kernels.
    pub functions: Vec<&'static str>,
    /// For each two quads, before them.
    pub loads: String,
    /// For the first of two quads, or for each where they do not go in pairs; and for the second.
    pub lines: [String; 2],
    /// Before the first.
    pub before: String,
    /// After the last.
    pub after: String,
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
    /// Storage buffers that the shader sees.
    pub fn bindings(&self) -> usize {
        self.buffers.len() + usize::from(!self.proved.is_empty())
    }
}

/// A body in the making.
#[derive(Clone)]
pub struct Body<'a> {
    recording: &'a Recording,
    /// Buffers that are never in memory.
    unseen: &'a [bool],
    /// Where in the trailer of the proof the sums of results go that are stored here and nowhere else.
    slots: &'a [Option<u32>],
    text: Text,
    /// Variables that exist.
    known: BTreeSet<String>,
    /// Planes that registers hold.
    held: BTreeSet<(Buf, u32)>,
    /// Those of them that memory has yet to get.
    changed: BTreeSet<(Buf, u32)>,
    calls: usize,
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
            loads: String::new(),
            lines: Default::default(),
            before: String::new(),
            after: String::new(),
            buffers: Vec::new(),
            params: Vec::new(),
            proved: Vec::new(),
            extent,
            frame,
        };
        let (known, held, changed) = Default::default();
        Self { recording, unseen, slots, text, known, held, changed, calls: 0 }
    }

    /// Appends `call`.
    pub fn call(&mut self, call: &'a Call) {
        let kernel = call.kernel;
        if !self.text.functions.contains(&kernel.wgsl) {
            self.text.functions.push(kernel.wgsl);
            let plus = if self.text.label.is_empty() { "" } else { "+" };
            self.text.label += &[plus, kernel.name].concat();
        }
        let params = self.text.params.len();
        self.text.params.extend(&call.params);
        self.calls += 1;
        let mut site = Site { call, params, body: self };
        match kernel.form {
            Form::Quad(emit) | Form::Rows(emit) => emit(&mut site),
            Form::Shader(_) => unreachable!("`{}` is a shader of its own", kernel.name),
        }
    }

    /// The text, with what is to be in memory put there.
    pub fn finish(mut self) -> Text {
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
        self.text
    }

    fn line(&mut self, line: &str) {
        self.lines(line, line);
    }

    /// A line for each of two quads.
    fn lines(&mut self, first: &str, second: &str) {
        for (lines, line) in self.text.lines.iter_mut().zip([first, second]) {
            let _ = writeln!(lines, "            {line}");
        }
    }

    /// A line before two quads.
    fn load(&mut self, line: &str) {
        let _ = writeln!(self.text.loads, "            {line}");
    }

    /// True the first time.
    fn first(&mut self, name: &str) -> bool {
        self.known.insert(name.to_owned())
    }

    /// The name of a buffer that is an array of `ty`.
    fn bind(&mut self, buf: Buf, ty: &'static str, access: Access) -> String {
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

    fn declare(&mut self, buf: Buf) {
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
    fn hold(&mut self, buf: Buf, plane: u32) {
        self.declare(buf);
        // What is in memory nowhere was set before, or is not needed.
        if !self.held.insert((buf, plane)) || self.unseen[buf.0] {
            return;
        }
        let value = self.in_memory(buf, &format!("{plane}u"));
        self.line(&format!("r{}[{plane}] = {value};", buf.0));
    }

    /// Has the planes before `end` in registers: in a loop, which a driver compiles in a time that does not grow with them.
    fn hold_many(&mut self, buf: Buf, end: u32) {
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
    fn words_of(&self, dtype: Dtype) -> (&'static str, bool) {
        let Frame { pairs, wide, .. } = self.text.frame;
        match (dtype.size(), pairs) {
            (1, false) => ("u32", false),
            (1, true) | (2, false) => ("vec2<u32>", false),
            (2 | 4, _) if wide => ("vec2<u64>", true),
            _ => ("vec4<u32>", false),
        }
    }

    /// Parameter word `i` of the uniform, read once.
    fn word(&mut self, i: usize) -> String {
        let name = format!("word{i}");
        if self.first(&name) {
            let _ = writeln!(self.text.before, "    let {name} = p.words[{}].{};", i / 4, ["x", "y", "z", "w"][i % 4]);
        }
        name
    }

    /// Adds the words `names`, which are stored in `buf` from `first` on, to its sum.
    fn prove(&mut self, buf: Buf, dtype: Dtype, first: &str, names: &[String]) {
        let Some(slot) = self.slots[buf.0] else { return };
        let sum = format!("sum{}", buf.0);
        if self.first(&sum) {
            self.text.proved.push((buf, slot));
            let _ = writeln!(self.text.before, "    var {sum} = 0u;");
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
    fn constant(&mut self, buf: Buf, count: u32) -> Option<usize> {
        let Role::Constant(words) = &self.recording.buffers[buf.0].role else { return None };
        let words = words.get(..count as usize).filter(|_| count <= FEW)?;
        let first = self.text.params.len();
        self.text.params.extend(words);
        Some(first)
    }
}

/// `ty(f(x), f(y), f(z), f(w))`.
fn spread(ty: &str, f: impl Fn(&str) -> String) -> String {
    format!("{ty}({})", ["x", "y", "z", "w"].map(f).join(", "))
}

/// A call in a body.
struct Site<'a, 'b> {
    call: &'a Call,
    /// Where its parameters begin.
    params: usize,
    body: &'b mut Body<'a>,
}

impl Site<'_, '_> {
    fn buf(&self, binding: usize) -> Buf {
        self.call.args[binding]
    }

    fn dtype(&self, buf: Buf) -> Dtype {
        self.body.recording.dtype(buf)
    }
}

impl Quad for Site<'_, '_> {
    fn constant(&self, i: usize) -> u32 {
        self.call.constants[i]
    }

    fn fixed(&self, i: usize) -> u32 {
        self.call.params[i]
    }

    fn planes(&self) -> u32 {
        self.body.recording.planes
    }

    fn word(&mut self, i: usize) -> String {
        self.body.word(self.params + i)
    }

    fn float(&mut self, i: usize) -> String {
        format!("bitcast<f32>({})", self.word(i))
    }

    fn bits(&mut self, binding: usize) -> String {
        let buf = self.buf(binding);
        let (name, dtype) = (format!("v{}", buf.0), self.dtype(buf));
        if self.body.known.contains(&name) {
            return name;
        }
        let code = dtype.code();
        let value = if self.body.text.frame.words {
            match &self.stored(binding)[..] {
                [low, high] => format!("widen4_f64({low}, {high})"),
                stored => format!("widen4({code}u, {})", stored[0]),
            }
        } else {
            let from = self.body.bind(buf, "u32", Access::Read);
            spread("vec4<u32>", |c| {
                let next = if dtype == Dtype::F64 { format!("{from}[2u * at.{c} + 1u]") } else { "0u".to_owned() };
                format!("widen_bits({code}u, {from}[word_of({code}u, at.{c})], {next}, at.{c})")
            })
        };
        self.body.line(&format!("let {name} = {value};"));
        self.body.known.insert(name.clone());
        name
    }

    fn stored(&mut self, binding: usize) -> Vec<String> {
        let buf = self.buf(binding);
        let dtype = self.dtype(buf);
        assert!(self.body.text.frame.words, "stored elements of rows that are no whole words");
        let wide = dtype == Dtype::F64;
        let names: Vec<String> =
            ["e", "h"][..if wide { 2 } else { 1 }].iter().map(|s| format!("{s}{}", buf.0)).collect();
        if !self.body.first(&names[0]) {
            return names;
        }
        let (pairs, (ty, wide)) = (self.body.text.frame.pairs, self.body.words_of(dtype));
        let (from, own) = (self.body.bind(buf, ty, Access::Read), buf.0);
        let load = |at: &str| if wide { format!("words_of({from}[{at}])") } else { format!("{from}[{at}]") };
        match dtype.size() {
            8 => {
                self.body.line(&format!("let d{own} = array<vec4<u32>, 2>({from}[i >> 1u], {from}[(i >> 1u) + 1u]);"));
                self.body.line(&format!("let e{own} = vec4<u32>(d{own}[0].xz, d{own}[1].xz);"));
                self.body.line(&format!("let h{own} = vec4<u32>(d{own}[0].yw, d{own}[1].yw);"));
            }
            4 => self.body.line(&format!("let e{own} = {};", load("i >> 2u"))),
            size => {
                let (parts, [low, high]) = if size == 2 { ("halves", ["xy", "zw"]) } else { ("bytes", ["x", "y"]) };
                if pairs {
                    self.body.load(&format!("let pair{own} = {};", load("j >> 3u")));
                    let half = |half: &str| format!("let e{own} = {parts}(pair{own}.{half});");
                    self.body.lines(&half(low), &half(high));
                } else {
                    self.body.line(&format!("let e{own} = {parts}({from}[i >> 2u]);"));
                }
            }
        }
        names
    }

    fn words(&mut self, binding: usize) -> String {
        let buf = self.buf(binding);
        let (whole, name) = (self.body.text.frame.whole, format!("w{}", buf.0));
        if self.body.first(&name) {
            let from = self.body.bind(buf, if whole { "vec4<u32>" } else { "u32" }, Access::Read);
            let value =
                if whole { format!("{from}[i >> 2u]") } else { spread("vec4<u32>", |c| format!("{from}[at.{c}]")) };
            self.body.line(&format!("let {name} = {value};"));
        }
        name
    }

    fn plane(&mut self, binding: usize, plane: u32) -> String {
        let buf = self.buf(binding);
        self.body.hold(buf, plane);
        format!("r{}[{plane}]", buf.0)
    }

    fn stack(&mut self, binding: usize, read: u32) -> String {
        let buf = self.buf(binding);
        self.body.declare(buf);
        if read > MANY {
            self.body.hold_many(buf, read);
        }
        (0..read).for_each(|plane| self.body.hold(buf, plane));
        format!("&r{}", buf.0)
    }

    fn set(&mut self, binding: usize, plane: u32, value: &str) {
        let buf = self.buf(binding);
        self.body.declare(buf);
        self.body.line(&format!("r{}[{plane}] = {value};", buf.0));
        self.changed(binding, plane);
    }

    fn changed(&mut self, binding: usize, plane: u32) {
        let place = (self.buf(binding), plane);
        self.body.held.insert(place);
        self.body.changed.insert(place);
    }

    fn store(&mut self, binding: usize, values: &[String]) {
        let buf = self.buf(binding);
        let dtype = self.dtype(buf);
        let (pairs, (words, wide)) = (self.body.text.frame.pairs, self.body.words_of(dtype));
        let to = self.body.bind(buf, words, Access::Write);
        let four = |words: &str| if wide { format!("numbers_of({words})") } else { words.to_owned() };
        // Words are whole: what is beyond the last element is zero.
        let clean = |value: &String| match self.body.text.frame.whole {
            true => value.clone(),
            false => format!("select(vec4<u32>(), {value}, exist)"),
        };
        let values: Vec<String> = values.iter().map(clean).collect();
        let name = |stem: &str| format!("{stem}{}", buf.0);
        let (s, t) = (name("s"), name("t"));
        let of = |name: &str, parts: &[&str]| parts.iter().map(|c| format!("{name}.{c}")).collect::<Vec<_>>();
        let quad = ["x", "y", "z", "w"];
        let (first, words) = match dtype.size() {
            8 => {
                let (lo, hi) = (name("lo"), name("hi"));
                self.body.line(&format!("let {lo} = {}; let {hi} = {};", values[0], values[1]));
                self.body.line(&format!("let {s} = vec4<u32>({lo}.x, {hi}.x, {lo}.y, {hi}.y);"));
                self.body.line(&format!("let {t} = vec4<u32>({lo}.z, {hi}.z, {lo}.w, {hi}.w);"));
                self.body.line(&format!("{to}[i >> 1u] = {s}; {to}[(i >> 1u) + 1u] = {t};"));
                ("2u * i", [of(&s, &quad), of(&t, &quad)].concat())
            }
            4 => {
                self.body.line(&format!("let {s} = {}; {to}[i >> 2u] = {};", values[0], four(&s)));
                ("i", of(&s, &quad))
            }
            size => {
                let (join, ty, first, parts) = match size {
                    2 => ("join_halves", "vec2<u32>", "(i >> 1u)", of(&s, &quad[..2])),
                    _ => ("join_bytes", "u32", "(i >> 2u)", vec![s.clone()]),
                };
                let own = format!("let {s} = {join}({});", values[0]);
                if pairs {
                    self.body.load(&format!("var {t}: {ty};"));
                    let both =
                        if size == 2 { four(&format!("vec4<u32>({t}, {s})")) } else { format!("vec2<u32>({t}, {s})") };
                    self.body.lines(&format!("{own} {t} = {s};"), &format!("{own} {to}[j >> 3u] = {both};"));
                } else {
                    self.body.line(&format!("{own} {to}[i >> 2u] = {s};"));
                }
                (first, parts)
            }
        };
        self.body.prove(buf, dtype, first, &words);
    }

    fn values(&mut self, binding: usize, count: u32) -> String {
        if count == 0 {
            return "Weights(0.0)".to_owned();
        }
        let buf = self.buf(binding);
        let values: Vec<String> = match self.body.constant(buf, count) {
            Some(first) => {
                (first..first + count as usize).map(|i| format!("bitcast<f32>({})", self.body.word(i))).collect()
            }
            None => {
                let (from, name) = (self.body.bind(buf, "f32", Access::Read), self.name("values"));
                self.body.line(&format!("var {name}: Weights;"));
                self.body.line(&format!("for (var k = 0u; k < {count}u; k++) {{ {name}[k] = {from}[k]; }}"));
                return name;
            }
        };
        format!("Weights({})", values.join(", "))
    }

    fn of_row(&mut self, binding: usize) -> String {
        let buf = self.buf(binding);
        if !matches!(self.body.recording.buffers[buf.0].size, Size::Rows(_)) {
            return match self.body.constant(buf, 1) {
                Some(first) => format!("vec4<f32>(bitcast<f32>({}))", self.body.word(first)),
                None => self.at(binding, "0u", true),
            };
        }
        if self.body.text.frame.in_rows() {
            let name = format!("own{}", buf.0);
            if self.body.first(&name) {
                let from = self.body.bind(buf, "f32", Access::Read);
                // A workgroup may have rows to spare.
                self.before(&format!("let {name} = {from}[min(row, p.dims.rows - 1u)];"));
            }
            return format!("vec4<f32>({name})");
        }
        match self.aligned() {
            true => self.at(binding, "i / p.dims.row_len", true),
            false => self.at(binding, "(at / p.dims.row_len)", false),
        }
    }

    fn at(&mut self, binding: usize, place: &str, alike: bool) -> String {
        let buf = self.buf(binding);
        let from = self.body.bind(buf, "f32", Access::Read);
        if alike {
            return format!("vec4<f32>({from}[{place}])");
        }
        spread("vec4<f32>", |c| format!("{from}[({place}).{c}]"))
    }

    fn aligned(&self) -> bool {
        self.body.text.frame.aligned
    }

    fn exist(&self) -> &'static str {
        if self.body.text.frame.whole { "vec4<bool>(true)" } else { "exist" }
    }

    fn line(&mut self, text: &str) {
        self.body.line(text);
    }

    fn before(&mut self, text: &str) {
        let _ = writeln!(self.body.text.before, "    {text}");
    }

    fn count(&mut self, binding: usize, value: &str) {
        let buf = self.buf(binding);
        let to = self.body.bind(buf, "atomic<u32>", Access::Write);
        let add = ["x", "y", "z"].into_iter().enumerate().map(|(i, c)| format!("atomicAdd(&{to}[{i}], {value}.{c});"));
        let add = add.collect::<Vec<_>>().join(" ");
        let _ = writeln!(self.body.text.after, "    if any({value} != vec3<u32>()) {{ {add} }}");
    }

    fn name(&mut self, stem: &str) -> String {
        format!("{stem}_{}", self.body.calls)
    }

    fn join(&mut self, binding: usize, value: &str, count: u32, join: &str, width: u32) {
        let buf = self.buf(binding);
        let (ty, part) = match width {
            4 => ("vec4<f32>", ""),
            2 => ("vec2<f32>", ".xy"),
            _ => ("f32", ".x"),
        };
        let to = self.body.bind(buf, ty, Access::Write);
        let after = &mut self.body.text.after;
        // A loop over what sums themselves are in would keep these out of registers from the first quad on.
        let _ = writeln!(after, "    var all_{to}: array<vec4<f32>, {count}>;");
        for k in 0..count {
            let _ = writeln!(after, "    all_{to}[{k}] = {value}[{k}];");
        }
        let _ = writeln!(
            after,
            "    for (var k = 0u; k < {count}u; k++) {{
        workgroupBarrier();
        partial[lane] = all_{to}[k];
        for (var half = LANES / 2u; half > 0u; half >>= 1u) {{
            workgroupBarrier();
            if lane % LANES < half {{
                partial[lane] = {join}(partial[lane], partial[lane + half]);
            }}
        }}
        if lane % LANES == 0u && row < p.dims.rows {{
            {to}[row * {count}u + k] = partial[lane]{part};
        }}
    }}"
        );
    }

    fn row_value(&mut self, binding: usize, place: &str, wide: bool) -> String {
        let buf = self.buf(binding);
        let from = self.body.bind(buf, if wide { "vec4<f32>" } else { "f32" }, Access::Read);
        format!("{from}[{place}]")
    }
}
