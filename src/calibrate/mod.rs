//! Calibration: the factors ξ that put back the magnitude a merge has lost or swollen (MAGIC, arXiv 2512.19320).

pub mod candidate;
pub mod feature;
pub mod fsc;
pub mod measure;
pub mod spectral;
pub mod wsc;
