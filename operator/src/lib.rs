//! The operator: admission, release, scaling.
