//! The polar factor by matrix products alone: X ← aX + (bA + cA²)·X with A = XXᵀ, for odd polynomials that take every
//! singular value from the cut up to 1 ([`coefficients`](super::coefficients)), then 15/8, −10/8, 3/8 until ‖A − I‖ stalls.

use super::coefficients::{Quintic, polynomials};
use super::device::{Device, Remote};
use super::host::{bounds, cut};
use super::matrix::Matrix;
use crate::error::Result;

/// Most steps after the polynomials that were planned.
const STEPS: usize = 8;

/// ‖A − I‖ / √r at which the rows count as orthonormal: rounding leaves about 5e-8·√r, one missing direction 1/√r.
const ORTHOGONAL: f64 = 3e-5;

/// σ1/σ_r, over √r, up to which products are as good as 1e-5 of ‖P‖.
const TURN: f64 = 10.0;

/// Above 1 by what rounding may bring.
const HIGH: f64 = 1.005;

/// What an iteration holds.
struct State<'d, 'a> {
    device: &'d mut Device<'a>,
    /// X, and two of its size.
    x: Remote,
    y: Remote,
    z: Remote,
    /// A, A², and one of their size.
    first: Remote,
    second: Remote,
    third: Remote,
}

/// The polar factor of `x`, or nothing where it has singular values of zero or nearly so.
///
/// # Errors
/// What the device fails at.
pub fn by_products(device: &mut Device<'_>, x: &Matrix) -> Result<Option<Matrix>> {
    let (short, turned) = x.short();
    let mut scaled = short.into_owned();
    let unit = scaled.unit();
    scaled.scale(unit);
    scaled.scale(1.0 / scaled.norm());
    let (n, cols) = (scaled.rows, scaled.cols);
    let mut identity = Matrix::zeros(n, n);
    (0..n).for_each(|i| identity.values[i * n + i] = 1.0);
    let identity = device.load(&identity)?;
    let x = device.load(&scaled)?;
    let [first, second, third] = [device.make(n, n)?, device.make(n, n)?, device.make(n, n)?];
    let (y, z) = (device.make(cols, n)?, device.make(n, cols)?);
    let mut state = State { device, x, y, z, first, second, third };
    state.squares()?;
    // σ1⁸ ≤ Σσ⁸ ≤ r·σ1⁸.
    let most = state.device.norm(second)?.powf(0.25);
    let least = cut(n, cols) / (n as f64).powf(0.125);
    for (i, step) in polynomials(least, HIGH, 1e-4).into_iter().enumerate() {
        if i == 0 {
            // Those of X/σ1, with A as it is.
            let Quintic { a, b, c } = step;
            state.step(Quintic { a: a / most, b: b / most.powi(3), c: c / most.powi(5) })?;
        } else {
            state.squares()?;
            state.step(step)?;
        }
    }
    let mut before = f64::INFINITY;
    for _ in 0..STEPS {
        state.squares()?;
        let State { first, third, .. } = state;
        state.device.sum((1.0, first), (-1.0, identity), third)?;
        let away = state.device.norm(third)? / (n as f64).sqrt();
        if away.is_nan() || away >= 0.5 * before {
            before = before.min(away);
            break;
        }
        before = away;
        state.step(Quintic::LAST)?;
    }
    if before.is_nan() || before > ORTHOGONAL {
        return Ok(None);
    }
    // H = P·Xᵀ has the singular values of X as its own. Rounding turns each direction by about 2⁻²⁴·σ1/σ.
    state.device.load_into(&scaled, state.z)?;
    state.device.product(state.x, state.z, state.first)?;
    let values = bounds(&state.device.read(state.first)?.wide(), n);
    if values.is_none_or(|(most, least)| most / least > TURN * (n as f64).sqrt()) {
        return Ok(None);
    }
    let found = state.device.read(state.x)?;
    Ok(Some(if turned { found.transposed() } else { found }))
}

impl State<'_, '_> {
    /// A = XXᵀ and A².
    fn squares(&mut self) -> Result<()> {
        self.device.product(self.x, self.x, self.first)?;
        self.device.product(self.first, self.first, self.second)
    }

    /// X ← aX + (bA + cA²)·X.
    fn step(&mut self, Quintic { a, b, c }: Quintic) -> Result<()> {
        let Self { x, y, z, first, second, third, .. } = *self;
        self.device.sum((b, first), (c, second), third)?;
        self.device.transpose(x, y)?;
        self.device.product(third, y, z)?;
        // X's transpose is used up; the next X takes its place.
        let next = y.shaped(x.rows, x.cols);
        self.device.sum((a, x), (1.0, z), next)?;
        (self.x, self.y) = (next, x.shaped(x.cols, x.rows));
        Ok(())
    }
}
