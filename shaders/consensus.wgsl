// scale · s where enough experts hold a large share of s = Σ u_k, u_k = weights[k] · tau[k]: those with
// |u_k| > cut · |s − u_k| (TALL masks and Consensus TA, arXiv 2405.07813, eq. 4 and §4).
fn consensus(weights: Weights, cut: f32, least: u32, scale: f32, tau: ptr<function, Stack>) -> vec4<f32> {
    var w = weights;
    var sum = vec4<f32>();
    for (var k = 0u; k < EXPERTS; k++) {
        sum += w[k] * (*tau)[k];
    }
    var votes = vec4<u32>();
    for (var k = 0u; k < EXPERTS; k++) {
        let u = w[k] * (*tau)[k];
        votes += select(vec4<u32>(), vec4<u32>(1u), abs(u) > cut * abs(sum - u));
    }
    return select(vec4<f32>(), scale * sum, votes >= vec4<u32>(least));
}
