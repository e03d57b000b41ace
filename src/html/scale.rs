//! The vertical axis of a chart: from which to which value, and where its ticks are.

/// Where values lie between the bottom (0) and the top (1) of a chart.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    low: f64,
    high: f64,
    /// Whether equal ratios, and not equal differences, have equal heights.
    pub log: bool,
}

/// Values that are this many times as large as others need a logarithmic axis.
const WIDE: f64 = 12.0;
/// Most ticks.
const TICKS: usize = 5;

impl Scale {
    /// One that holds all values that are finite; `None` if there are none.
    pub fn new(values: impl Iterator<Item = f64>) -> Option<Self> {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| value.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            return None;
        }
        if low > 0.0 && high / low > WIDE {
            return Some(Self { low: low.log10(), high: high.log10(), log: true }.padded());
        }
        Some(Self { low, high, log: false }.padded())
    }

    /// With some air above and below; of a single value, as much as it takes to place it.
    fn padded(self) -> Self {
        let span = self.high - self.low;
        // Beyond half of f64, nothing is left to add to.
        let air = match span.is_finite() {
            true if span > 1e-9 * self.high.abs().max(self.low.abs()) => 0.06 * span,
            true if self.high.abs() < f64::MIN_POSITIVE => 1.0,
            true => 0.05 * self.high.abs(),
            false => 0.0,
        };
        Self { low: self.low - air, high: self.high + air, ..self }
    }

    /// Height of `value`, from 0 to 1; `None` for what has no place.
    pub fn place(&self, value: f64) -> Option<f64> {
        let value = if self.log { value.log10() } else { value };
        let place = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        place.is_finite().then(|| place.clamp(0.0, 1.0))
    }

    /// Values to write at the axis, and how.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let mut values = if self.log { self.decades() } else { self.steps() };
        let every = values.len().div_ceil(TICKS).max(1);
        values = values.into_iter().step_by(every).collect();
        values.into_iter().map(|value| (value, label(value))).collect()
    }

    fn steps(&self) -> Vec<f64> {
        let power = 10f64.powf((self.high / 10.0 - self.low / 10.0).log10().floor());
        let count = |step: f64| (self.high / step).floor() - (self.low / step).ceil() + 1.0;
        let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0].map(|n| n * power);
        let Some(step) = steps.into_iter().find(|step| count(*step) <= TICKS as f64) else { return Vec::new() };
        let first = (self.low / step).ceil();
        (0..count(step) as usize).map(|i| (first + i as f64) * step).collect()
    }

    fn decades(&self) -> Vec<f64> {
        let decades = self.low.floor() as i32..=self.high.ceil() as i32;
        let parts: &[f64] = if self.high - self.low > 2.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all = decades.flat_map(|decade| parts.iter().map(move |part| part * 10f64.powi(decade)));
        all.filter(|value| (self.low..=self.high).contains(&value.log10())).collect()
    }
}

/// A round number, without digits that say nothing.
fn label(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || size < 1e-12 {
        return "0".into();
    }
    if !(1e-3..1e5).contains(&size) {
        return format!("{value:.0e}");
    }
    let digits = (2 - size.log10().floor() as i32).clamp(0, 5) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64]) -> Vec<String> {
        Scale::new(values.iter().copied()).expect("a scale").ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(&[0.61, 1.0, 1.4]), ["0.6", "0.8", "1", "1.2", "1.4"]);
        assert_eq!(labels(&[0.0, 16.0]), ["0", "5", "10", "15"]);
        assert_eq!(labels(&[-0.2, 1.0]), ["0", "0.5", "1"]);
        assert_eq!(labels(&[0.1, 20.0]), ["0.1", "1", "10"]);
        assert_eq!(labels(&[1.0, 13.0]), ["1", "2", "5", "10"]);
        assert!(labels(&[1e-9, 1e300]).len() <= TICKS);
    }

    #[test]
    fn awkward_values_have_a_place_or_none() {
        assert!(Scale::new([f64::NAN, f64::INFINITY].into_iter()).is_none());
        assert!(Scale::new([].into_iter()).is_none());
        let rows = [&[0.0][..], &[1.0], &[-3.0, -3.0], &[1.0, 1.0 + 1e-15], &[f64::MIN, f64::MAX], &[5e-324], &[1e308]];
        for values in rows {
            let scale = Scale::new(values.iter().copied()).expect("a scale");
            for &value in values {
                let place = scale.place(value).unwrap_or_else(|| panic!("{values:?}: {value} has no place"));
                assert!((0.0..=1.0).contains(&place), "{values:?}: {value} is at {place}");
            }
            assert!(scale.ticks().len() <= TICKS);
            assert_eq!(scale.place(f64::NAN), None);
        }
        let log = Scale::new([1e-3, 1e3].into_iter()).unwrap();
        assert!(log.log && log.place(0.0).is_none() && (log.place(1.0).unwrap() - 0.5).abs() < 1e-9);
    }
}
