//! The loop around what calls do: over elements, or over rows with a sum at the end.

use super::body::Text;
use super::program::Built;
use crate::kernel::Access;
use crate::kernels::{COMMON, QUAD};
use crate::recording::{Buf, Extent};

/// Quads of a workgroup that goes over elements.
const QUADS: u32 = 1024;

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
}

impl Frame {
    /// Over elements, by workgroups of `size` invocations, a power of two.
    pub fn elements(extent: &Extent, size: u32) -> Self {
        let aligned = extent.row_len.is_multiple_of(4);
        Self { size, row: None, words: true, aligned, whole: extent.n.is_multiple_of(4) }
    }

    /// Over rows, each by at most `lanes` invocations, a power of two.
    pub fn rows(extent: &Extent, lanes: u32) -> Self {
        let aligned = extent.row_len.is_multiple_of(4);
        let shared = extent.row_len.div_ceil(4).next_power_of_two().min(lanes);
        Self { size: lanes, row: Some(shared), words: aligned, aligned, whole: aligned && extent.n.is_multiple_of(4) }
    }
}

/// The shader around `text`, for a stack of `planes`.
pub fn build(text: Text, planes: u32) -> Built {
    let Text { label, functions, lines, before, after, buffers, mut params, proved, extent, frame } = text;
    params.resize(params.len().div_ceil(4).max(1) * 4, 0);
    let (experts, words, size) = (planes.saturating_sub(1), params.len() / 4, frame.size);
    let mut bindings = Vec::new();
    for (buf, access, ty) in &buffers {
        let access = if *access == Access::Write { "read_write" } else { "read" };
        bindings.push(format!("var<storage, {access}> b{}: array<{ty}>;", buf.0));
    }
    let [mut before, mut after, mut sums] = [before, after, String::new()];
    if !proved.is_empty() {
        bindings.push("var<storage, read_write> trailer: array<atomic<u32>>;".to_owned());
        before.insert_str(0, "    let epoch = p.dims.epoch;\n");
        sums = format!("var<workgroup> sums: array<atomic<u32>, {}>;\n", proved.len());
        after += &totals(&proved);
    }
    let bindings: String = (1..).zip(bindings).map(|(i, b)| format!("@group(0) @binding({i}) {b}\n")).collect();
    let (code, groups) = match frame.row {
        None => (elements(&lines, &before, &after, size), extent.n.div_ceil(4 * QUADS)),
        Some(lanes) => {
            (rows_of(&lines, &before, &after, lanes, size / lanes), extent.rows.div_ceil(size / lanes))
        }
    };
    let text = format!(
        "{COMMON}
const PLANES = {planes}u;
const EXPERTS = {experts}u;
const WEIGHTS = {}u;
{QUAD}
{}
struct Params {{
    dims: Dims,
    words: array<vec4<u32>, {words}>,
}}

@group(0) @binding(0) var<uniform> p: Params;
{bindings}
var<workgroup> partial: array<vec4<f32>, {size}>;
{sums}
@compute @workgroup_size({size})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {{
{code}}}
",
        experts.max(1),
        functions.concat(),
    );
    let buffers = buffers.into_iter().map(|(buf, access, _)| (buf, access)).collect();
    let proved = proved.into_iter().map(|(buf, _)| buf).collect();
    Built { label, text, buffers, proved, params, extent, groups: u64::from(groups) }
}

fn elements(lines: &str, before: &str, after: &str, size: u32) -> String {
    format!(
        "    let start = flat_group(group, groups) * {QUADS}u + lane;
{before}    for (var quad = 0u; quad < {QUADS}u; quad += {size}u) {{
        let i = (start + quad) * 4u;
        if i < p.dims.n {{
            let at = min(vec4<u32>(i) + IOTA, vec4<u32>(p.dims.n - 1u));
            let exist = vec4<u32>(i) + IOTA < vec4<u32>(p.dims.n);
{lines}        }}
    }}
{after}"
    )
}

fn rows_of(lines: &str, before: &str, after: &str, lanes: u32, rows: u32) -> String {
    format!(
        "    const LANES = {lanes}u;
    let row = flat_group(group, groups) * {rows}u + lane / LANES;
    let end = min((row + 1u) * p.dims.row_len, p.dims.n);
{before}    for (var i = row * p.dims.row_len + (lane % LANES) * 4u; i < end; i += LANES * 4u) {{
        let at = min(vec4<u32>(i) + IOTA, vec4<u32>(end - 1u));
        let exist = vec4<u32>(i) + IOTA < vec4<u32>(end);
{lines}    }}
{after}"
    )
}

/// Adds what the invocations have of the sums of results to the trailer of the proof.
fn totals(proved: &[(Buf, u32)]) -> String {
    let own = |(i, (buf, _)): (usize, &(Buf, u32))| format!("    atomicAdd(&sums[{i}], sum{});\n", buf.0);
    let all = |(i, (_, slot)): (usize, &(Buf, u32))| {
        format!("        atomicAdd(&trailer[{slot}], atomicLoad(&sums[{i}]));\n")
    };
    let [own, all]: [String; 2] =
        [proved.iter().enumerate().map(own).collect(), proved.iter().enumerate().map(all).collect()];
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
