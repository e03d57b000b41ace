//! The loop around what calls do: over elements, or over rows with a sum at the end.

use super::body::Text;
use super::program::Built;
use crate::kernel::{Access, WORKGROUP};
use crate::kernels::{COMMON, QUAD};
use crate::recording::Extent;

/// Quads of an invocation that goes over elements.
const QUADS: u32 = 4;

/// How a shader goes over its extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Invocations that share a row, and rows of a workgroup; `None` where there are no rows.
    rows: Option<(u32, u32)>,
    /// Quads begin at multiples of four, so that stored elements are whole words.
    pub words: bool,
    /// All rows are multiples of four long, and quads begin at multiples of four.
    pub aligned: bool,
    /// All four elements of a quad exist.
    pub whole: bool,
}

impl Frame {
    /// Over elements.
    pub fn elements(extent: &Extent) -> Self {
        let aligned = extent.row_len.is_multiple_of(4);
        Self { rows: None, words: true, aligned, whole: extent.n.is_multiple_of(4) }
    }

    /// Over rows, each by at most `lanes` invocations, a power of two.
    pub fn rows(extent: &Extent, lanes: u32) -> Self {
        let aligned = extent.row_len.is_multiple_of(4);
        let shared = extent.row_len.div_ceil(4).next_power_of_two().min(lanes);
        let rows = Some((shared, lanes / shared));
        Self { rows, words: aligned, aligned, whole: aligned && extent.n.is_multiple_of(4) }
    }
}

/// The shader around `text`, for a stack of `planes`.
pub fn build(text: Text, planes: u32) -> Built {
    let Text { label, functions, lines, before, after, buffers, mut params, extent, frame } = text;
    params.resize(params.len().div_ceil(4).max(1) * 4, 0);
    let (experts, words) = (planes.saturating_sub(1), params.len() / 4);
    let bindings: String = buffers
        .iter()
        .enumerate()
        .map(|(i, (buf, access, ty))| {
            let access = if *access == Access::Write { "read_write" } else { "read" };
            format!("@group(0) @binding({}) var<storage, {access}> b{}: array<{ty}>;\n", i + 1, buf.0)
        })
        .collect();
    let (size, code, groups) = match frame.rows {
        None => (
            WORKGROUP,
            elements(&lines, &before, &after),
            u64::from(extent.n).div_ceil(4 * u64::from(WORKGROUP * QUADS)),
        ),
        Some((lanes, rows)) => {
            let code = rows_of(&lines, &before, &after, lanes, rows);
            (lanes * rows, code, u64::from(extent.rows.div_ceil(rows)))
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

@compute @workgroup_size({size})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {{
{code}}}
",
        experts.max(1),
        functions.concat(),
    );
    let buffers = buffers.into_iter().map(|(buf, access, _)| (buf, access)).collect();
    Built { label, text, buffers, params, extent, groups }
}

fn elements(lines: &str, before: &str, after: &str) -> String {
    format!(
        "    let start = flat_group(group, groups) * {} + lane;
{before}    for (var quad = 0u; quad < {QUADS}u; quad++) {{
        let i = (start + quad * WORKGROUP) * 4u;
        if i < p.dims.n {{
            let at = min(vec4<u32>(i) + IOTA, vec4<u32>(p.dims.n - 1u));
            let exist = vec4<u32>(i) + IOTA < vec4<u32>(p.dims.n);
{lines}        }}
    }}
{after}",
        WORKGROUP * QUADS
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
