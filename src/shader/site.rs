//! What a kernel sees of the shader that its call is put into.

use std::fmt::Write as _;

use super::body::{Body, MANY, spread};
use super::frame::JOINED;
use crate::checkpoint::Dtype;
use crate::kernel::{Access, Form, Quad};
use crate::recording::{Buf, Call, Size};

impl<'a> Body<'a> {
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
        self.body.far |= self.body.text.buffers.iter().any(|known| (known.0, known.1) == (buf, Access::Write));
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
        let _ = writeln!(self.body.text.phase().before, "    {text}");
    }

    fn count(&mut self, binding: usize, value: &str) {
        let buf = self.buf(binding);
        let to = self.body.bind(buf, "atomic<u32>", Access::Write);
        let add = ["x", "y", "z"].into_iter().enumerate().map(|(i, c)| format!("atomicAdd(&{to}[{i}], {value}.{c});"));
        let add = add.collect::<Vec<_>>().join(" ");
        let _ = writeln!(self.body.text.phase().after, "    if any({value} != vec3<u32>()) {{ {add} }}");
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
        let shared = self.body.text.frame.shared();
        let after = &mut self.body.text.phase().after;
        if !shared {
            let own = (0..count).map(|k| format!("{to}[row * {count}u + {k}u] = {value}[{k}]{part};"));
            let _ = writeln!(after, "    if row < p.dims.rows {{ {} }}", own.collect::<Vec<_>>().join(" "));
            return;
        }
        // As many at a time as there is room for; by constants, since a loop would keep them out of registers.
        for first in (0..count).step_by(JOINED as usize) {
            let some = JOINED.min(count - first);
            let _ = writeln!(after, "    workgroupBarrier();");
            for k in 0..some {
                let _ = writeln!(after, "    partial[{k}u * SIZE + lane] = {value}[{}];", first + k);
            }
            let _ = writeln!(
                after,
                "    for (var half = LANES / 2u; half > 0u; half >>= 1u) {{
        workgroupBarrier();
        if lane % LANES < half {{
            for (var k = lane; k < {some}u * SIZE; k += SIZE) {{
                partial[k] = {join}(partial[k], partial[k + half]);
            }}
        }}
    }}
    if lane % LANES == 0u && row < p.dims.rows {{
        for (var k = 0u; k < {some}u; k++) {{
            {to}[row * {count}u + {first}u + k] = partial[k * SIZE + lane]{part};
        }}
    }}"
            );
        }
    }

    fn row_value(&mut self, binding: usize, place: &str, wide: bool) -> String {
        let buf = self.buf(binding);
        let from = self.body.bind(buf, if wide { "vec4<f32>" } else { "f32" }, Access::Read);
        format!("{from}[{place}]")
    }

    fn set_row(&mut self, binding: usize, value: &str) {
        let buf = self.buf(binding);
        let to = self.body.bind(buf, "f32", Access::Write);
        self.before(&format!("if lane % LANES == 0u && row < p.dims.rows {{ {to}[row] = {value}; }}"));
    }
}
