//! Extensions of hellos in the interface of `rtc-dtls`.

/// The extension `use_srtp` (RFC 5764 4.1.1).
pub mod extension_use_srtp {
    /// SRTP protection profiles, by their names in `rtc-dtls`.
    #[allow(non_camel_case_types)]
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum SrtpProtectionProfile {
        /// RFC 5764 4.1.2.
        Srtp_Aes128_Cm_Hmac_Sha1_80,
        /// RFC 5764 4.1.2. Not in `dimpl`.
        Srtp_Aes128_Cm_Hmac_Sha1_32,
        /// RFC 7714 14.2.
        Srtp_Aead_Aes_128_Gcm,
        /// RFC 7714 14.2.
        Srtp_Aead_Aes_256_Gcm,
        /// No profile was negotiated.
        Unsupported,
    }
}
