//! The loops around what calls do: over elements, or over rows with sums at the end, and once more with what those gave.

use std::fmt::Write as _;

use super::body::{Phase, Text};
use super::program::{Built, Device};
use crate::kernel::Access;
use crate::kernels::{COMMON, QUAD, WIDE};
use crate::recording::{Buf, Extent};

/// Elements of a workgroup that goes over elements.
const ELEMENTS: u32 = 4096;

/// Sums that are joined at a time, of each row.
pub const JOINED: u32 = 4;

/// How a shader goes over its extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Invocations of a workgroup.
    size: u32,
    /// Invocations that share a row; `None` where there are no rows.
    row: Option<u32>,
    /// Quads begin at multiples of four, so that stored elements are whole words.
    pub words: bool,
    /// All rows are multiples of four long, and quads begin at multiples of four.
    pub aligned: bool,
    /// All four elements of a quad exist.
    pub whole: bool,
    /// Elements that an invocation takes at a time: a quad or two. In rows it goes by their length alone, so that sums are
    /// the same whatever the block.
    width: u32,
    /// They are two quads, of which both exist: small elements are then loaded 16 bytes at a time.
    pub pairs: bool,
    /// Four words are loaded as two numbers.
    pub wide: bool,
}

impl Frame {
    /// Over elements; by two quads at a time if `pairs` will do.
    pub fn elements(extent: &Extent, device: Device, pairs: bool) -> Self {
        let aligned = extent.row_len.is_multiple_of(4);
        let [whole, even] = [4, 8].map(|elements| extent.n.is_multiple_of(elements));
        let pairs = pairs && even;
        let width = if pairs { 8 } else { 4 };
        Self { size: device.group, row: None, words: true, aligned, whole, width, pairs, wide: device.wide }
    }

    /// Over rows, likewise.
    pub fn rows(extent: &Extent, Device { lanes, alone, wide, .. }: Device, pairs: bool) -> Self {
        let [aligned, even] = [4, 8].map(|elements| extent.row_len.is_multiple_of(elements));
        let width = if pairs && even { 8 } else { 4 };
        let row = Some(extent.row_len.div_ceil(alone.max(width)).next_power_of_two().min(lanes));
        // The last row may be short.
        let (whole, pairs) = (aligned && extent.n.is_multiple_of(4), width == 8 && extent.n.is_multiple_of(8));
        Self { size: lanes, row, words: aligned, aligned, whole, width, pairs, wide }
    }

    /// True if rows are gone over one by one.
    pub fn in_rows(&self) -> bool {
        self.row.is_some()
    }

    /// True if an invocation takes two quads at a time.
    pub fn in_pairs(&self) -> bool {
        self.width > 4
    }

    /// True if invocations share rows.
    pub fn shared(&self) -> bool {
        self.row.is_some_and(|lanes| lanes > 1)
    }
}

/// The shader around `text`, for a stack of `planes`.
pub fn build(text: Text, planes: u32) -> Built {
    let Text { label, functions, phases, buffers, mut params, proved, extent, frame } = text;
    params.resize(params.len().div_ceil(4).max(1) * 4, 0);
    let (experts, words, size) = (planes.saturating_sub(1), params.len() / 4, frame.size);
    let mut bindings = Vec::new();
    for (buf, access, ty) in &buffers {
        let access = if *access == Access::Write { "read_write" } else { "read" };
        bindings.push(format!("var<storage, {access}> b{}: array<{ty}>;", buf.0));
    }
    let mut own = String::new();
    if !proved.is_empty() {
        bindings.push("var<storage, read_write> trailer: array<atomic<u32>>;".to_owned());
        own += &format!("var<workgroup> sums: array<atomic<u32>, {}>;\n", proved.len());
    }
    if frame.shared() {
        own += &format!("var<workgroup> partial: array<vec4<f32>, {}>;\n", JOINED * size);
    }
    let bindings: String = (1..).zip(bindings).map(|(i, b)| format!("@group(0) @binding({i}) {b}\n")).collect();
    let ends = phases.iter().skip(1).map(|phase| phase.proved).chain([proved.len()]);
    let code: Vec<String> = phases.iter().zip(ends).map(|(phase, end)| walk(frame, phase, &proved[..end])).collect();
    // Who has a row to itself has stored what it needs.
    let code = code.join(if frame.shared() { "    storageBarrier();\n    workgroupBarrier();\n" } else { "" });
    let (head, groups) = match frame.row {
        None => (String::new(), extent.n.div_ceil(ELEMENTS)),
        Some(lanes) => (rows_of(frame, lanes), extent.rows.div_ceil(size / lanes)),
    };
    let wide = if frame.wide { WIDE } else { "" };
    let text = format!(
        "{COMMON}
const PLANES = {planes}u;
const EXPERTS = {experts}u;
const WEIGHTS = {}u;
{QUAD}
{wide}{}
struct Params {{
    dims: Dims,
    words: array<vec4<u32>, {words}>,
}}

@group(0) @binding(0) var<uniform> p: Params;
{bindings}
const SIZE = {size}u;
{own}
@compute @workgroup_size({size})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {{
    let epoch = p.dims.epoch;
{head}{code}}}
",
        experts.max(1),
        functions.concat(),
    );
    let buffers = buffers.into_iter().map(|(buf, access, _)| (buf, access)).collect();
    let proved = proved.into_iter().map(|(buf, _)| buf).collect();
    Built { label, text, buffers, proved, params, extent, groups: u64::from(groups) }
}

/// A phase; the last of the sums `proved` are its own.
fn walk(frame: Frame, phase: &Phase, proved: &[(Buf, u32)]) -> String {
    let Phase { loads, lines, before, after, proved: first } = phase;
    let Frame { size, width, .. } = frame;
    let (start, walk) = match frame.row {
        None => {
            let (quads, share) = (quads(frame, loads, lines, "p.dims.n"), ELEMENTS / width);
            let start = format!("    let start = flat_group(group, groups) * {share}u + lane;\n");
            let walk = format!(
                "    for (var k = 0u; k < {share}u; k += {size}u) {{
        let j = (start + k) * {width}u;
        if j < p.dims.n {{
{quads}        }}
    }}
"
            );
            (start, walk)
        }
        Some(_) => {
            let quads = quads(frame, loads, lines, "end");
            let start = "    var end = min((row + 1u) * p.dims.row_len, p.dims.n);\n".to_owned();
            let first = format!("row * p.dims.row_len + (lane % LANES) * {width}u");
            (start, format!("    for (var j = {first}; j < end; j += LANES * {width}u) {{\n{quads}    }}\n"))
        }
    };
    let walk = if lines[0].is_empty() { "" } else { &walk };
    format!("    {{\n{start}{before}{walk}{after}{}    }}\n", totals(proved, *first))
}

fn rows_of(frame: Frame, lanes: u32) -> String {
    let rows = frame.size / lanes;
    format!("    const LANES = {lanes}u;\n    let row = flat_group(group, groups) * {rows}u + lane / LANES;\n")
}

/// What is done with the elements from `j` on; there are none from `end` on.
fn quads(frame: Frame, loads: &str, [first, second]: &[String; 2], end: &str) -> String {
    let quad = |i: &str, lines: &str| {
        format!(
            "            let i = {i};
            let at = min(vec4<u32>(i) + IOTA, vec4<u32>({end} - 1u));
            let exist = vec4<u32>(i) + IOTA < vec4<u32>({end});
{lines}"
        )
    };
    match (frame.pairs, frame.width) {
        (true, _) => format!(
            "{loads}        {{\n{}        }}\n        {{\n{}        }}\n",
            quad("j", first),
            quad("j + 4u", second)
        ),
        (false, 4) => quad("j", first),
        (false, width) => {
            format!(
                "        for (var q = j; q < min(j + {width}u, {end}); q += 4u) {{\n{}        }}\n",
                quad("q", first)
            )
        }
    }
}

/// Adds what the invocations have of the sums of results, from the `first` on, to the trailer of the proof.
fn totals(proved: &[(Buf, u32)], first: usize) -> String {
    let (mut own, mut all) = (String::new(), String::new());
    for (i, (buf, slot)) in proved.iter().enumerate().skip(first) {
        let _ = writeln!(own, "    atomicAdd(&sums[{i}], sum{});", buf.0);
        let _ = writeln!(all, "        atomicAdd(&trailer[{slot}], atomicLoad(&sums[{i}]));");
    }
    if own.is_empty() {
        return own;
    }
    format!(
        "{own}    workgroupBarrier();
    if lane == 0u {{
{all}        if flat_group(group, groups) == 0u {{
            atomicStore(&trailer[0], epoch);
        }}
    }}
"
    )
}
