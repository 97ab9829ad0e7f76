//! Kubernetes facts in, immutable snapshot out.
