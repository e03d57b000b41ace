//! Under which names factors are written.
