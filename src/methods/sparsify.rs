//! Sparsification: what of each expert's task vector takes part in the merge.

use crate::error::Result;
use crate::kernels::drop as random;
use crate::kernels::drop_ranked::Chances;
use crate::kernels::trim::Threshold;
use crate::kernels::{drop_l1, drop_ranked, mask, norms, rank, trim, variance};
use crate::methods::{Rescale, Settings, Sparsify};
use crate::plan::Tensor;
use crate::recording::{Buf, Recording, Size};
use crate::select::{self, Source};
use crate::stack::Stack;
use crate::stream::Stream;
use crate::totals::{pairs, totals};

/// What stays of one expert's task vector, and its scale.
#[derive(Clone, Debug)]
struct Mask {
    /// The largest entries, and those of them that go again.
    band: Option<(Threshold, Threshold)>,
    random: Option<Random>,
    scale: f32,
}

/// A random choice.
#[derive(Clone, Copy, Debug)]
struct Random {
    key: [u32; 2],
    density: f64,
    /// Where they depend on ranks.
    ranked: Option<Chances>,
}

impl Random {
    const ALL: Self = Self { key: [0; 2], density: 1.0, ranked: None };
}

impl Mask {
    const ALL: Self = Self { band: None, random: None, scale: 1.0 };
    const NONE: Self = Self { scale: 0.0, ..Self::ALL };

    fn is_identity(&self) -> bool {
        self.band.is_none() && self.random.is_none() && self.scale == 1.0
    }

    fn is_ranked(&self) -> bool {
        self.random.is_some_and(|random| random.ranked.is_some())
    }

    /// Appends the masking of `tau[plane]`; `ranks` are buffers to sort in and for the result.
    fn record(&self, list: &mut Recording, tau: Buf, plane: u32, ranks: Option<(Buf, Buf)>) {
        if let Some((keep, top)) = self.band {
            trim::record(list, tau, plane, keep, top);
        }
        match self.random {
            Some(Random { key, ranked: Some(chances), .. }) => {
                let (sorted, ranks) = ranks.expect("a ranked mask has its buffers");
                rank::record(list, tau, plane, sorted, ranks);
                drop_ranked::record(list, ranks, tau, plane, key, chances, self.scale);
            }
            Some(Random { key, density, ranked: None }) => {
                random::record(list, tau, plane, key, density, self.scale);
            }
            None if self.scale != 1.0 => random::record(list, tau, plane, [0; 2], 1.0, self.scale),
            None => {}
        }
    }
}

/// What stays of all experts' task vectors of one tensor.
#[derive(Clone, Debug)]
pub struct Masks {
    each: Vec<Mask>,
    /// The entries that vary most stay, in all alike.
    varying: Option<Threshold>,
}

impl Masks {
    /// True if they change nothing.
    pub fn is_identity(&self) -> bool {
        self.varying.is_none() && self.each.iter().all(Mask::is_identity)
    }

    /// Appends the masking of the first planes of `tau`.
    pub fn record(&self, list: &mut Recording, tau: Buf) {
        let ranks = self
            .each
            .iter()
            .any(Mask::is_ranked)
            .then(|| (list.scratch("sorted", rank::scratch()), list.scratch("ranks", Size::Planes(1))));
        for (k, mask) in self.each.iter().enumerate() {
            mask.record(list, tau, k as u32, ranks);
        }
        if let Some(threshold) = self.varying {
            let variances = list.scratch("variances", Size::Planes(1));
            variance::record(list, tau, variances);
            mask::record(list, variances, threshold, tau);
        }
    }
}

/// The masks of all experts for one tensor. Reads the tensor as often as an exact answer takes: not at all for
/// plain methods, once for an exact threshold (a few times more if a sample misleads), once for the L1 rescaling.
pub fn masks(stream: &Stream<'_>, rule: Sparsify, settings: &Settings, seed: u64) -> Result<Masks> {
    let n = stream.tensor.elements;
    let mut each = match rule {
        Sparsify::Keep | Sparsify::Varying => vec![Mask::ALL; settings.weights.len()],
        Sparsify::Largest => largest(stream, settings)?,
        Sparsify::Middle => middle(stream, settings)?,
        Sparsify::Random | Sparsify::Ranked => chances(stream.tensor, rule, settings, seed),
    };
    let varying = match rule {
        Sparsify::Varying if settings.select_topk < 1.0 => {
            // Entries in which all experts agree take no part in the count.
            let wanted = share(settings.select_topk, n - select::zeros(stream, Source::Variance)?);
            Some(select::cuts(stream, Source::Variance, &[wanted])?[0])
        }
        _ => None,
    };
    match settings.rescale {
        Rescale::None => {}
        Rescale::InverseDensity => {
            for (mask, &density) in each.iter_mut().zip(&settings.densities).filter(|(_, density)| **density > 0.0) {
                mask.scale = (1.0 / density) as f32;
            }
        }
        Rescale::L1 if each.iter().all(Mask::is_identity) => {}
        Rescale::L1 => each = l1_scaled(stream, each)?,
    }
    Ok(Masks { each, varying })
}

/// ⌊share · n⌋.
fn share(share: f64, n: u64) -> u64 {
    (share * n as f64).floor() as u64
}

/// The ⌊density·n⌋ largest.
fn largest(stream: &Stream<'_>, settings: &Settings) -> Result<Vec<Mask>> {
    let n = stream.tensor.elements;
    let wanted: Vec<u64> = settings.densities.iter().map(|&density| share(density, n)).collect();
    let keep = select::cuts(stream, Source::Experts, &wanted)?;
    Ok(keep.into_iter().map(|keep| band(keep, Threshold::NOTHING)).collect())
}

/// The ⌊density·n⌋ that come after the ⌊gamma·n⌋ largest; fewer of these go where there are not as many others.
fn middle(stream: &Stream<'_>, settings: &Settings) -> Result<Vec<Mask>> {
    let n = stream.tensor.elements;
    let counts = settings.densities.iter().zip(&settings.gammas).map(|(&density, &gamma)| {
        let kept = share(density, n);
        let top = share(gamma, n).min(n - kept);
        (kept + top, top)
    });
    let (kept, top): (Vec<u64>, Vec<u64>) = counts.unzip();
    let keep = select::cuts(stream, Source::Experts, &kept)?;
    let top = select::cuts(stream, Source::Experts, &top)?;
    Ok(keep.into_iter().zip(top).map(|(keep, top)| band(keep, top)).collect())
}

fn band(keep: Threshold, top: Threshold) -> Mask {
    match (keep, top) {
        (Threshold::EVERYTHING, Threshold::NOTHING) => Mask::ALL,
        band => Mask { band: Some(band), ..Mask::ALL },
    }
}

/// Each element by chance.
fn chances(tensor: &Tensor, rule: Sparsify, settings: &Settings, seed: u64) -> Vec<Mask> {
    let experts = settings.densities.iter().zip(&settings.epsilons).enumerate();
    let mask = |(expert, (&density, &epsilon)): (usize, (&f64, &f64))| match density {
        d if d >= 1.0 => Mask::ALL,
        d if d <= 0.0 => Mask::NONE,
        _ => {
            let ranked = (rule == Sparsify::Ranked).then_some(Chances { density, epsilon, row_len: tensor.row_len });
            let key = random::key(seed, &tensor.name, expert);
            Mask { random: Some(Random { key, density, ranked }), ..Mask::ALL }
        }
    };
    experts.map(mask).collect()
}

/// With the scale ‖τ‖₁ / ‖m ∘ τ‖₁ for each expert; 1 where nothing is left.
fn l1_scaled(stream: &Stream<'_>, mut each: Vec<Mask>) -> Result<Vec<Mask>> {
    let norms = if each.iter().any(|mask| mask.band.is_some() || mask.is_ranked()) {
        l1_norms(stream, &each)?
    } else {
        dropped_l1_norms(stream, &each)?
    };
    for (mask, [before, after]) in each.iter_mut().zip(norms) {
        if !mask.is_identity() && after > 0.0 {
            mask.scale *= (before / after) as f32;
        }
    }
    Ok(each)
}

/// ‖τ‖₁ and ‖m ∘ τ‖₁ of each expert.
fn l1_norms(stream: &Stream<'_>, each: &[Mask]) -> Result<Vec<[f64; 2]>> {
    let mut list = Recording::new(each.len() as u32); // random masks and thresholds ask for no plane of the merge
    let stack = Stack::record(&mut list, stream.tensor, each.len());
    let before = list.result("before", norms::size(list.planes));
    norms::record_l1(&mut list, stack.tau, before);
    let masks = Masks { each: each.to_vec(), varying: None };
    masks.record(&mut list, stack.tau);
    let after = list.result("after", norms::size(list.planes));
    norms::record_l1(&mut list, stack.tau, after);
    let totals = totals(stream, &list)?;
    Ok(totals[0].iter().zip(&totals[1]).map(|(before, after)| [before.l1, after.l1]).collect())
}

/// The same where masks are random and do not depend on ranks, without masking; with nothing dropped where there is none.
fn dropped_l1_norms(stream: &Stream<'_>, each: &[Mask]) -> Result<Vec<[f64; 2]>> {
    let mut list = Recording::new(each.len() as u32);
    let stack = Stack::record(&mut list, stream.tensor, each.len());
    for (k, mask) in each.iter().enumerate() {
        let Random { key, density, .. } = mask.random.unwrap_or(Random::ALL);
        let sums = list.result("sums", drop_l1::SIZE);
        drop_l1::record(&mut list, stack.tau, k as u32, key, density, sums);
    }
    pairs(stream, &list)
}
