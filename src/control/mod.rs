//! placeholder

pub mod notify;
