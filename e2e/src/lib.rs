//! The genuine control plane: test bed, harness kubelet, demo, tests.
