//! DTLS for `rtc`: the part of `rtc-dtls`'s interface that `rtc` uses, on the crate `dimpl`.
//!
//! A client offers DTLS 1.3 and 1.2 (RFC 9147, RFC 6347), a server selects the newer one. Both show
//! certificates, which the caller checks. A certificate may have an [`observer::Observer`].
//!
//! Settings of `rtc` that are fixed in `dimpl` are ignored: the extended master secret is required,
//! suites and SRTP profiles are those of `dimpl`.

#![allow(
    clippy::needless_pass_by_value,
    reason = "the interface is that of rtc-dtls"
)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "virtual time needs a beginning")
)]

pub mod cipher_suite;
mod clear;
pub mod config;
mod connection;
pub mod crypto;
pub mod endpoint;
pub mod extension;
pub mod observer;
pub mod state;

#[cfg(test)]
mod tests;
