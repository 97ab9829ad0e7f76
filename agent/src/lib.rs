//! The node agent: publishes NodeTopology, creates NodePlacement.
