//! Samples of a time, and what is said of them.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::Result;

/// How long to look.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Samples that are thrown away first.
    pub warmup: u32,
    /// Samples at least, unless they take longer than `most`.
    pub samples: usize,
    /// Time to spend at least.
    pub least: Duration,
    /// Time after which three samples are enough.
    pub most: Duration,
    /// What a sample should take, in many rounds if one is short.
    pub sample: Duration,
}

impl Effort {
    /// For figures that are shown around.
    pub const FULL: Self = Self {
        warmup: 3,
        samples: 20,
        least: Duration::from_millis(300),
        most: Duration::from_secs(4),
        sample: Duration::from_millis(8),
    };

    /// For a first look.
    pub const QUICK: Self = Self {
        warmup: 1,
        samples: 7,
        least: Duration::from_millis(20),
        most: Duration::from_millis(400),
        sample: Duration::from_millis(2),
    };
}

/// One look, seconds for a round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// By the host's clock.
    pub wall: f64,
    /// By the device's own clock, where it has one.
    pub gpu: Option<f64>,
}

impl Sample {
    /// By the better clock.
    pub fn best(&self) -> f64 {
        self.gpu.unwrap_or(self.wall)
    }
}

/// Rounds in a sample at most.
const ROUNDS: u32 = 4096;

/// Rounds that make a sample of the wanted length; `look` takes one of so many.
pub fn rounds(effort: &Effort, look: &mut dyn FnMut(u32) -> Result<Sample>) -> Result<u32> {
    let mut rounds = 1;
    loop {
        let round = look(rounds)?.best().max(1e-9);
        let wanted = (effort.sample.as_secs_f64() / round).ceil().min(f64::from(ROUNDS)) as u32;
        if wanted <= rounds + rounds / 2 {
            return Ok(rounds);
        }
        rounds = wanted.min(16 * rounds); // the first look may have been at something else
    }
}

/// Samples of several things in turn, so that what else the machine does meets all of them.
pub fn samples<const N: usize>(
    effort: &Effort,
    mut look: [&mut dyn FnMut() -> Result<Sample>; N],
) -> Result<[Vec<Sample>; N]> {
    for _ in 0..effort.warmup {
        look.iter_mut().try_for_each(|look| look().map(drop))?;
    }
    let mut all = [const { Vec::new() }; N];
    let started = Instant::now();
    loop {
        for (samples, look) in all.iter_mut().zip(&mut look) {
            samples.push(look()?);
        }
        let (taken, passed) = (all.first().map_or(0, Vec::len), started.elapsed());
        if taken >= effort.samples && passed >= effort.least || taken >= 3 && passed >= effort.most {
            return Ok(all);
        }
    }
}

/// Times for a round, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The middle one, which rates are taken from.
    pub median_ns: f64,
    /// The least.
    pub min_ns: f64,
    /// A quarter of the samples lie below.
    pub p25_ns: f64,
    /// A quarter of the samples lie above.
    pub p75_ns: f64,
    /// One in twenty lies above.
    pub p95_ns: f64,
    /// All, as they came.
    pub samples_ns: Vec<f64>,
}

impl Figures {
    /// What is said of `seconds`, of which there is one at least.
    pub fn new(seconds: impl Iterator<Item = f64>) -> Self {
        let samples_ns: Vec<f64> = seconds.map(|s| (s * 1e10).round() / 10.0).collect();
        let mut sorted = samples_ns.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| sorted[((sorted.len() - 1) as f64 * part).round() as usize];
        Self { median_ns: at(0.5), min_ns: at(0.0), p25_ns: at(0.25), p75_ns: at(0.75), p95_ns: at(0.95), samples_ns }
    }

    /// Half the width of the middle half, in percent of the median.
    pub fn spread(&self) -> f64 {
        50.0 * (self.p75_ns - self.p25_ns) / self.median_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_few() {
        let figures = Figures::new([5e-9, 1e-9, 3e-9, 2e-9, 4e-9].into_iter());
        assert_eq!((figures.median_ns, figures.min_ns, figures.p25_ns, figures.p75_ns), (3.0, 1.0, 2.0, 4.0));
        assert_eq!(figures.samples_ns, [5.0, 1.0, 3.0, 2.0, 4.0]);
        assert!((figures.spread() - 100.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn samples_are_long_enough_and_no_longer() {
        let effort = Effort { sample: Duration::from_micros(1000), ..Effort::QUICK };
        for (round, wanted) in [(2.1e-6, 477..=477), (0.4e-3, 3..=3), (2.0, 1..=1), (1e-12, ROUNDS..=ROUNDS)] {
            let found = rounds(&effort, &mut |_| Ok(Sample { wall: round, gpu: None })).unwrap();
            assert!(wanted.contains(&found), "{round} {found}");
        }
        let mut taken = 0;
        let mut look = || {
            taken += 1;
            Ok(Sample { wall: 1.0, gpu: None })
        };
        let effort = Effort { least: Duration::ZERO, ..Effort::QUICK };
        let [all] = samples(&effort, [&mut look]).unwrap();
        assert_eq!((all.len(), taken), (7, 8));
    }
}
