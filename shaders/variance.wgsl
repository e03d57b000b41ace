// Population variance of τ_1 … τ_K at each element: where experts differ (SCE). In two passes over the planes, mean first, so
// that a small difference of large values keeps its digits.
fn variance(tau: ptr<function, Stack>) -> vec4<f32> {
    // Differences from the first: where all are the same they are zero, whatever the rounding of a mean.
    let first = (*tau)[0];
    var mean = vec4<f32>();
    for (var k = 1u; k < EXPERTS; k++) {
        mean += (*tau)[k] - first;
    }
    mean /= f32(EXPERTS);
    var sum = mean * mean;
    for (var k = 1u; k < EXPERTS; k++) {
        let d = ((*tau)[k] - first) - mean;
        sum += d * d;
    }
    return sum / f32(EXPERTS);
}
