//! The life of a reservation: promise, bind, observe, release.
