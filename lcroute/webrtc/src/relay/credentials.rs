//! Temporary credentials without state at the relay (coturn's `use-auth-secret`).
//!
//! ```text
//! user = EXPIRY:NAME                               EXPIRY: seconds since 1970
//! password = base64(HMAC-SHA1(secret, user))
//! ```

use librecast::time::UnixTime;

use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use lcroute_overlay::server::RelayCredentials;

/// Bound of a name, in bytes.
const MAX_NAME: usize = 64;
/// Bytes of the hash in a node's name: enough to be unique.
const NAME: usize = 12;

/// Makes credentials of a name, valid until `expires`, in seconds since 1970.
#[must_use]
pub fn mint(secret: &[u8], name: &str, expires: u64) -> RelayCredentials {
    let user = format!("{expires}:{name}");
    let password = password(secret, &user);
    RelayCredentials { user, password }
}

pub(super) fn password(secret: &[u8], user: &str) -> String {
    let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    STANDARD.encode(sign(&key, user.as_bytes()))
}

/// Returns the name of a user whose credentials are still valid.
pub(super) fn name_of(user: &str, time: UnixTime) -> Option<&str> {
    let (expires, name) = user.split_once(':')?;
    let fits = !name.is_empty() && name.len() <= MAX_NAME;
    (fits && time.as_secs() < expires.parse().ok()?).then_some(name)
}

/// End of the network's part in names of users inside: these have quotas of their own.
pub(super) const INSIDE: &str = "~";

/// Returns the name of a user, `NETWORK.NODE`; `inside`: it may send to other users of the relay
/// alone.
pub(super) fn user_name(network: &str, node: &str, inside: bool) -> String {
    let inside = if inside { INSIDE } else { "" };
    format!("{network}{inside}.{node}")
}

/// Returns whether this is the network's part in the name of a user inside.
pub(super) fn is_inside(network: &str) -> bool {
    network.ends_with(INSIDE)
}

/// Returns a stable, opaque name for an identity that the server knows as `known_by`.
pub(super) fn pseudonym(secret: &[u8], known_by: &[u8]) -> String {
    let hash = sign(&Key::new(HMAC_SHA256, secret), known_by);
    URL_SAFE_NO_PAD.encode(&hash.as_ref()[..NAME])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From `printf 1800000000:alpha | openssl dgst -sha1 -hmac north -binary | base64`.
    #[test]
    fn the_password_is_coturns() {
        let minted = mint(b"north", "alpha", 1_800_000_000);
        assert_eq!(minted.user, "1800000000:alpha");
        assert_eq!(minted.password, "3lOH10XVRPRpx1NnqqDPfZu+buE=");
    }

    #[test]
    fn who_is_late_or_has_no_name_is_nobody() {
        assert_eq!(name_of("100:a", UnixTime::from_secs(99)), Some("a"));
        for user in ["100:a", "a", "100:", ":a", "-1:a", "100a:b", ""] {
            assert_eq!(name_of(user, UnixTime::from_secs(100)), None, "{user}");
        }
        assert_eq!(
            name_of(&format!("100:{}", "a".repeat(65)), UnixTime::from_secs(1)),
            None
        );
    }

    proptest! {
        #[test]
        fn each_secret_and_user_has_another_password(secrets in any::<[[u8; 8]; 2]>(), expires in 1_u64.., name in "[a-z]{1,20}") {
            let minted = secrets.map(|secret| mint(&secret, &name, expires));
            prop_assert_eq!(secrets[0] == secrets[1], minted[0].password == minted[1].password);
            prop_assert_eq!(name_of(&minted[0].user, UnixTime::from_secs(expires - 1)), Some(&name[..]));
            prop_assert_ne!(pseudonym(&secrets[0], b"a"), pseudonym(&secrets[0], b"b"));
        }

        #[test]
        fn arbitrary_users_never_panic(user: String, time: u64) {
            let _ = name_of(&user, UnixTime::from_secs(time));
        }
    }
}
