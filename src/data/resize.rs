//! PIL's resize of 8-bit images, step for step: filters widened when an image shrinks, columns before rows, bytes
//! in between, weights in fixed point. Pixels come out as `PIL.Image.resize` makes them.

use super::picture::Picture;

/// How pixels are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Lanczos,
    Bilinear,
    Bicubic,
}

impl Filter {
    /// PIL's number of a filter.
    pub(super) fn from_pil(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Lanczos),
            2 => Some(Self::Bilinear),
            3 => Some(Self::Bicubic),
            _ => None,
        }
    }

    fn support(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let far = x.abs();
        match self {
            Self::Lanczos if far < 3.0 => sinc(x) * sinc(x / 3.0),
            Self::Bilinear if far < 1.0 => 1.0 - far,
            Self::Bicubic if far < 1.0 => (1.5 * far - 2.5) * far * far + 1.0,
            Self::Bicubic if far < 2.0 => (((far - 5.0) * far + 8.0) * far - 4.0) * -0.5,
            _ => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

/// Bits of a weight after the point.
const BITS: u32 = 32 - 8 - 2;

/// What one output pixel is made of: where its input pixels begin, and their weights.
struct Taps {
    from: usize,
    weights: Vec<i64>,
}

/// The taps of each of `to` pixels made from `from`.
fn taps(from: usize, to: usize, filter: Filter) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let spread = scale.max(1.0);
    let support = filter.support() * spread;
    let tap = |at: usize| {
        let center = (at as f64 + 0.5) * scale;
        // Casts stop at 0, as PIL's bounds do.
        let begin = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let raw: Vec<f64> = (begin..end).map(|x| filter.weight((x as f64 - center + 0.5) * (1.0 / spread))).collect();
        let sum: f64 = raw.iter().sum();
        let fixed = |weight: &f64| {
            let weight = if sum == 0.0 { *weight } else { weight / sum };
            (weight * f64::from(1 << BITS)).round() as i64
        };
        Taps { from: begin, weights: raw.iter().map(fixed).collect() }
    };
    (0..to).map(tap).collect()
}

fn byte(sum: i64) -> u8 {
    ((sum + (1 << (BITS - 1))) >> BITS).clamp(0, 255) as u8
}

/// `picture` in another size. Both sizes are at least 1.
pub(super) fn resize(picture: Picture, height: usize, width: usize, filter: Filter) -> Picture {
    let picture = if width == picture.width { picture } else { columns(&picture, width, filter) };
    if height == picture.height { picture } else { rows(&picture, height, filter) }
}

fn columns(picture: &Picture, width: usize, filter: Filter) -> Picture {
    let channels = picture.channels;
    let taps = taps(picture.width, width, filter);
    let mut bytes = Vec::with_capacity(picture.height * width * channels);
    for row in picture.bytes.chunks_exact(picture.width * channels) {
        for tap in &taps {
            let pixels = &row[tap.from * channels..];
            for channel in 0..channels {
                let of_channel = pixels[channel..].iter().step_by(channels);
                bytes.push(byte(tap.weights.iter().zip(of_channel).map(|(w, p)| w * i64::from(*p)).sum()));
            }
        }
    }
    Picture { width, bytes, ..*picture }
}

fn rows(picture: &Picture, height: usize, filter: Filter) -> Picture {
    let row = picture.width * picture.channels;
    let mut bytes = Vec::with_capacity(height * row);
    let mut sums = vec![0i64; row];
    for tap in taps(picture.height, height, filter) {
        sums.fill(0);
        for (weight, pixels) in tap.weights.iter().zip(picture.bytes[tap.from * row..].chunks_exact(row)) {
            for (sum, pixel) in sums.iter_mut().zip(pixels) {
                *sum += weight * i64::from(*pixel);
            }
        }
        bytes.extend(sums.iter().map(|sum| byte(*sum)));
    }
    Picture { height, bytes, ..*picture }
}
