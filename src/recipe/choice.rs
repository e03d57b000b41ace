//! Options that are one word of a short list.

use std::fmt;
use std::str::FromStr;

use super::{listed, near};
use crate::Error;

/// An enum whose variants are words: `as_str`, `FromStr` (with a hint) and `Display`.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident, $what:literal, { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// All words, in order.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word as a recipe and the command line write it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(word: &str) -> Result<Self, Error> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(unknown(word, $what, Self::WORDS)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

choice! {
    /// Where calibration measures magnitudes.
    Space, "calibration space", {
        /// No calibration.
        #[default]
        None = "none",
        /// Weight space.
        Wsc = "wsc",
        /// Feature space.
        Fsc = "fsc",
        /// Weight space, then feature space on its result.
        Dsc = "dsc",
        /// The best of the others, by unlabelled data.
        Auto = "auto",
    }
}

choice! {
    /// The shape of weight-space calibration.
    Manifold, "manifold", {
        /// Per row: the projections on the task vectors, and what is left of them.
        #[default]
        Mixed = "mixed",
        /// Per row: the mean norm of the task vectors.
        Sphere = "sphere",
        /// The same over a whole tensor.
        Tensor = "tensor",
        /// The largest singular value of a whole tensor.
        Spectral = "spectral",
    }
}

choice! {
    /// What becomes of NaN and infinities that a merge would change or make.
    NonFinite, "treatment of what is not finite", {
        /// The merge stops.
        #[default]
        Error = "error",
        /// They are computed with.
        Propagate = "propagate",
        /// The base's own element stands: there an expert counts as unchanged.
        Base = "base",
    }
}

choice! {
    /// A vector norm.
    Norm, "norm", {
        /// Sum of magnitudes.
        #[default]
        L1 = "l1",
        /// Euclidean.
        L2 = "l2",
        /// Largest magnitude.
        Linf = "linf",
    }
}

choice! {
    /// How feature-space calibration turns features into a factor.
    Fit, "fit", {
        /// The ratio of their norms.
        #[default]
        Magnitude = "magnitude",
        /// The least-squares scale, which counts direction too.
        Projection = "projection",
    }
}

choice! {
    /// The hidden states that feature-space calibration measures later leaves on.
    Propagate, "propagation", {
        /// Those of the merge before feature-space calibration, as in the paper.
        #[default]
        Merged = "merged",
        /// Those of the calibrated leaves before them.
        Calibrated = "calibrated",
    }
}

/// An unknown word of a list. Lists this short are shown whole, unless the word is clearly a typo.
fn unknown(word: &str, what: &str, words: &'static [&'static str]) -> Error {
    let hint = match near(&word.to_lowercase(), words.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known are {}", listed(words.iter().copied())),
    };
    Error::usage(format!("unknown {what} `{word}`")).hint(hint)
}
