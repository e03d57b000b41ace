//! Calibration: the factors ξ that put back the magnitude a merge has lost or swollen (MAGIC, arXiv 2512.19320).

pub mod measure;
pub mod spectral;
pub mod wsc;
