//! Hand-offs to real nginx processes on loopback, with their own directories and ports.

mod failures;
mod hand_off;
mod load;
mod rendering;
mod rig;
mod transport;
