// Inner products of all pairs of planes over each run of `unit` elements, in a fixed order.

struct Params {
    dims: Dims,
    unit: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> tau: array<f32>;          // [planes, n]
@group(0) @binding(2) var<storage, read_write> gram: array<f32>;   // [n / unit, pairs]: (0,0), (0,1) …, (1,1), (1,2) …

// Runs that are shorter are too short to be shared by invocations, and by those of a whole workgroup.
const SHARED = 128u;
const LONG = 8192u;

var<workgroup> partial: array<f32, 256>;

// One invocation a run.
fn alone(run: u32) {
    let n = p.dims.n;
    let start = run * p.unit;
    let end = min(start + p.unit, n);
    var at = run * (p.dims.planes * (p.dims.planes + 1u) / 2u);
    for (var i = 0u; i < p.dims.planes; i++) {
        for (var j = i; j < p.dims.planes; j++) {
            var sum = 0.0;
            for (var e = start; e < end; e++) {
                sum += tau[i * n + e] * tau[j * n + e];
            }
            gram[at] = sum;
            at += 1u;
        }
    }
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let n = p.dims.n;
    let planes = p.dims.planes;
    let pairs = planes * (planes + 1u) / 2u;
    let runs = (n + p.unit - 1u) / p.unit;
    if p.unit < SHARED {
        let run = flat_group(group, groups) * WORKGROUP + lane;
        if run < runs {
            alone(run);
        }
        return;
    }
    // One team of invocations a run and pair, and then another.
    let team = select(WORKGROUP, 32u, p.unit < LONG);
    let teams = WORKGROUP / team;
    let member = lane % team;
    for (var first = flat_group(group, groups) * teams; first < runs * pairs; first += groups.x * groups.y * teams) {
        let at = min(first + lane / team, runs * pairs - 1u);
        var i = 0u;
        var j = at % pairs;
        while j >= planes - i { // to row i of the triangle
            j -= planes - i;
            i += 1u;
        }
        j += i;
        let start = at / pairs * p.unit;
        let end = min(start + p.unit, n);
        var sum = 0.0;
        for (var e = start + member; e < end; e += team) {
            sum += tau[i * n + e] * tau[j * n + e];
        }
        partial[lane] = sum;
        for (var half = team / 2u; half > 0u; half >>= 1u) {
            workgroupBarrier();
            if member < half {
                partial[lane] += partial[lane + half];
            }
        }
        if member == 0u {
            gram[at] = partial[lane];
        }
        workgroupBarrier();
    }
}
