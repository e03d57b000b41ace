// For each row of logits, what its loss is made of: the largest logit, Σ exp(x − largest), how far the target's lies below
// the largest (−1 where the target is none of these classes), and the index of the largest, of equals the first.

struct Params {
    dims: Dims,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;       // [rows, row_len]
@group(0) @binding(2) var<storage, read> targets: array<u32>;      // [rows]
@group(0) @binding(3) var<storage, read_write> out: array<f32>;    // [rows, 4]

var<workgroup> most: array<f32, 256>;
var<workgroup> place: array<u32, 256>;
var<workgroup> partial: array<f32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let row = flat_group(group, groups);
    if row >= p.dims.rows {
        return;
    }
    let len = p.dims.row_len;
    let start = row * len;
    var largest = -3.4028234e38;
    var at = 0xffffffffu;
    for (var c = lane; c < len; c += WORKGROUP) {
        let x = logits[start + c];
        if x > largest || at == 0xffffffffu {
            largest = x;
            at = c;
        }
    }
    most[lane] = largest;
    place[lane] = at;
    for (var half = WORKGROUP / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half && place[lane + half] != 0xffffffffu {
            let other = most[lane + half];
            if other > most[lane] || (other == most[lane] && place[lane + half] < place[lane]) {
                most[lane] = other;
                place[lane] = place[lane + half];
            }
        }
    }
    workgroupBarrier();
    largest = most[0];
    var sum = 0.0;
    for (var c = lane; c < len; c += WORKGROUP) {
        sum += exp(logits[start + c] - largest);
    }
    partial[lane] = sum;
    for (var half = WORKGROUP / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half {
            partial[lane] += partial[lane + half];
        }
    }
    if lane == 0u {
        let wanted = targets[row];
        var behind = -1.0;
        if wanted < len {
            behind = largest - logits[start + wanted];
        }
        out[4u * row] = largest;
        out[4u * row + 1u] = partial[0];
        out[4u * row + 2u] = behind;
        out[4u * row + 3u] = f32(place[0]);
    }
}
