//! What every process needs: args, logs, admin port, lease, watch pump, shutdown.
