// xi · x: the merged task vector alone, by a factor for each row or one for all.
fn scale(xi: vec4<f32>, x: vec4<f32>) -> vec4<f32> {
    return xi * x;
}
