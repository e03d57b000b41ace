//! Rotary position embedding: frequencies, and their scaling variants (RoFormer, arXiv 2104.09864; Llama 3.1).

use super::config::Config;
use crate::error::Result;

/// Frequencies of a head.
#[derive(Clone, Debug)]
pub struct Rope {
    /// Elements of a head.
    pub dim: u32,
    /// Positions without scaling.
    positions: u32,
    theta: f64,
    scaling: Scaling,
}

#[derive(Clone, Copy, Debug)]
enum Scaling {
    None,
    /// Positions divided by a factor (position interpolation, arXiv 2306.15595).
    Linear(f64),
    /// A base that grows with what a sample has beyond the trained length (NTK-aware).
    Dynamic {
        factor: f64,
        trained: f64,
    },
    /// Low frequencies divided by a factor, high ones kept, a ramp between them.
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        trained: f64,
    },
}

impl Rope {
    /// As `config` says, in the words of any version of transformers.
    ///
    /// # Errors
    /// A variant that is not known, a key that is missing.
    pub fn new(config: &Config<'_>, dim: u32) -> Result<Self> {
        let scaling = if config.get("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
        let inner = config.inner(scaling);
        let given = config.get(scaling).is_some();
        let theta = inner.number("rope_theta", config.number("rope_theta", 10_000.0)?)?;
        let kind = if given { inner.word("rope_type").or(inner.word("type")).unwrap_or("default") } else { "default" };
        let factor = inner.number("factor", 1.0)?;
        let positions = config.size("max_position_embeddings")?;
        let trained = f64::from(positions);
        let scaling = match kind {
            "default" => Scaling::None,
            "linear" => Scaling::Linear(factor),
            "dynamic" => Scaling::Dynamic { factor, trained },
            "llama3" => Scaling::Llama3 {
                factor,
                low: inner.number("low_freq_factor", 1.0)?,
                high: inner.number("high_freq_factor", 4.0)?,
                trained: inner.number("original_max_position_embeddings", trained)?,
            },
            other => {
                let what = format!("is `{other}`; the forward pass knows default, linear, dynamic and llama3");
                return Err(config.bad("rope_type", &what));
            }
        };
        if inner.number("partial_rotary_factor", config.number("partial_rotary_factor", 1.0)?)? != 1.0 {
            return Err(config.bad("partial_rotary_factor", "is not 1, which the forward pass does not know"));
        }
        if dim % 2 == 1 {
            return Err(config.bad("head_dim", &format!("is {dim} (or makes it so), and odd heads cannot be rotated")));
        }
        if theta <= 0.0 || factor <= 0.0 {
            return Err(config.bad("rope_theta", "and its companions make no rotation"));
        }
        Ok(Self { dim, positions, theta, scaling })
    }

    /// The longest sample: what scaling by a factor adds to `max_position_embeddings` is taken in.
    pub fn longest(&self) -> u32 {
        match self.scaling {
            Scaling::Linear(factor) | Scaling::Dynamic { factor, .. } => {
                (f64::from(self.positions) * factor.max(1.0)) as u32
            }
            Scaling::None | Scaling::Llama3 { .. } => self.positions,
        }
    }

    /// Cosines, then sines, of each position of a sample of `len`: `[len, dim]`.
    pub fn table(&self, len: u32) -> Vec<f32> {
        let frequencies = self.frequencies(len);
        let mut table = Vec::with_capacity(len as usize * self.dim as usize);
        for position in 0..len {
            // The product in f32, as every implementation has it.
            let angles = || frequencies.iter().map(|frequency| position as f32 * *frequency as f32);
            table.extend(angles().map(|angle| f64::from(angle).cos() as f32));
            table.extend(angles().map(|angle| f64::from(angle).sin() as f32));
        }
        table
    }

    fn frequencies(&self, len: u32) -> Vec<f64> {
        let dim = f64::from(self.dim);
        let theta = match self.scaling {
            Scaling::Dynamic { factor, trained } if f64::from(len) > trained => {
                self.theta * (factor * f64::from(len) / trained - (factor - 1.0)).powf(dim / (dim - 2.0))
            }
            _ => self.theta,
        };
        let scale = |frequency: f64| match self.scaling {
            Scaling::None | Scaling::Dynamic { .. } => frequency,
            Scaling::Linear(factor) => frequency / factor,
            Scaling::Llama3 { factor, low, high, trained } => {
                let length = std::f64::consts::TAU / frequency;
                let smooth = ((trained / length - low) / (high - low)).clamp(0.0, 1.0);
                frequency * ((1.0 - smooth) / factor + smooth)
            }
        };
        (0..self.dim / 2).map(|i| scale(theta.powf(-2.0 * f64::from(i) / dim))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(config: serde_json::Value, len: u32) -> Vec<f32> {
        Rope::new(&Config::new("m", &config), 4).unwrap().table(len)
    }

    #[test]
    fn positions_turn_by_their_frequency() {
        let plain = table(json!({"max_position_embeddings": 8}), 3);
        assert_eq!(&plain[..4], &[1.0, 1.0, 0.0, 0.0]);
        assert!((plain[8] - 2f32.cos()).abs() < 1e-7 && (plain[11] - 0.02f32.sin()).abs() < 1e-7);
        let halved = table(json!({"max_position_embeddings": 8, "rope_scaling": {"type": "linear", "factor": 2.0}}), 5);
        assert!((halved[4 * 4] - plain[2 * 4]).abs() < 1e-7);
    }

    #[test]
    fn dynamic_scaling_begins_beyond_the_trained_length() {
        let config = || json!({"max_position_embeddings": 8, "rope_scaling": {"type": "dynamic", "factor": 2.0}});
        let plain = table(json!({"max_position_embeddings": 8}), 8);
        assert_eq!(table(config(), 8), plain);
        assert_ne!(table(config(), 9)[..32], plain[..]);
    }

    #[test]
    fn llama3_keeps_high_and_divides_low_frequencies() {
        let config = json!({"max_position_embeddings": 64, "rope_theta": 1e6, "rope_scaling":
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
             "original_max_position_embeddings": 64}});
        let rope = Rope::new(&Config::new("m", &config), 4).unwrap();
        let frequencies = rope.frequencies(4);
        assert!((frequencies[0] - 1.0).abs() < 1e-12);
        assert!((frequencies[1] - 1e-3 / 8.0).abs() < 1e-12);
    }

    #[test]
    fn unknown_variants_are_named() {
        let config = json!({"max_position_embeddings": 8, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}});
        let error = Rope::new(&Config::new("m", &config), 4).unwrap_err().to_string();
        assert!(error.contains("yarn"), "{error}");
    }
}
