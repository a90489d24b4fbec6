//! Addresses that no other server of this test run uses.
//!
//! A test that closes a listener and has Ballast connect to it again must not meet a stranger who got
//! the port in between, nor Ballast itself: a connect from 127.0.0.1 to a closed ephemeral port of
//! 127.0.0.1 now and then draws that very port and connects to itself. An own address rules out both.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

/// An address of 127.0.0.0/8 that this process has not handed out before, nor (very likely) another
/// test process on this machine.
pub fn fresh_ip() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id() % 190;
    Ipv4Addr::new(
        127,
        u8::try_from(process).expect("below 190") + 64,
        u8::try_from(number / 250 % 250).expect("below 250"),
        u8::try_from(number % 250).expect("below 250") + 1,
    )
}

/// A listen address of its own whose port the kernel chooses.
pub fn fresh_listen() -> String {
    format!("{}:0", fresh_ip())
}
