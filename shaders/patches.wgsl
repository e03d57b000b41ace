// Square patches of images as rows: patches from top to bottom and left to right, in each the channels, then its lines.

struct Params {
    dims: Dims,
    channels: u32,
    height: u32,
    width: u32,
    side: u32,   // of a patch
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> pixels: array<f32>;       // [images, channels, height, width]
@group(0) @binding(2) var<storage, read_write> out: array<f32>;    // [images·patches, channels·side·side]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let down = p.height / p.side;
    let across = p.width / p.side;
    let start = flat_group(group, groups) * WORKGROUP * 4u;
    for (var j = 0u; j < 4u; j++) {
        let i = start + j * WORKGROUP + lane;
        if i < p.dims.n {
            let row = i / p.dims.row_len;
            let image = row / across / down;
            let top = (row / across % down) * p.side;
            let left = (row % across) * p.side;
            let within = i % p.dims.row_len;
            let line = within / p.side;   // of all channels
            let channel = line / p.side;
            let y = (image * p.channels + channel) * p.height + top + line % p.side;
            out[i] = pixels[y * p.width + left + within % p.side];
        }
    }
}
