//! State of a handshake.

use std::fmt;

use dimpl::{KeyingMaterial, ProtocolVersion, SrtpProfile};
use rtc_shared::error::{Error, Result};
use zeroize::Zeroizing;

use crate::cipher_suite::Suites;
use crate::extension::extension_use_srtp::SrtpProtectionProfile;

/// The only label under which keys are exported (RFC 5764 4.2).
const SRTP_LABEL: &str = "EXTRACTOR-dtls_srtp";

/// State of a handshake.
pub struct State {
    /// The peer's certificate, DER: one, once it has been verified.
    pub peer_certificates: Vec<Vec<u8>>,
    pub(crate) version: Option<ProtocolVersion>,
    pub(crate) srtp: Option<(SrtpProfile, Zeroizing<Vec<u8>>)>,
    pub(crate) is_client: bool,
}

impl State {
    pub(crate) fn new(is_client: bool) -> Self {
        Self {
            peer_certificates: Vec::new(),
            version: None,
            srtp: None,
            is_client,
        }
    }

    pub(crate) fn keep(&mut self, material: &KeyingMaterial, profile: SrtpProfile) {
        self.srtp = Some((profile, Zeroizing::new(material.to_vec())));
    }

    /// Returns the negotiated SRTP profile.
    #[must_use]
    pub fn srtp_protection_profile(&self) -> SrtpProtectionProfile {
        match self.srtp.as_ref().map(|(profile, _)| *profile) {
            Some(SrtpProfile::AES128_CM_SHA1_80) => {
                SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80
            }
            Some(SrtpProfile::AEAD_AES_128_GCM) => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            Some(SrtpProfile::AEAD_AES_256_GCM) => SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
            _ => SrtpProtectionProfile::Unsupported,
        }
    }

    /// Returns the version's suites, for statistics.
    #[must_use]
    pub fn cipher_suite(&self) -> Option<Suites> {
        Some(Suites(match self.version? {
            ProtocolVersion::DTLS1_3 => "DTLS 1.3",
            _ => "DTLS 1.2",
        }))
    }

    /// Whether this end is the client.
    #[must_use]
    pub fn is_client(&self) -> bool {
        self.is_client
    }

    /// Exports the SRTP keys.
    ///
    /// # Errors
    ///
    /// The label is another, or the length.
    pub fn export_keying_material(
        &self,
        label: &str,
        context: &[u8],
        length: usize,
    ) -> Result<Vec<u8>> {
        let material = self.srtp.as_ref().map(|(_, material)| material);
        match material {
            Some(material)
                if label == SRTP_LABEL && context.is_empty() && material.len() == length =>
            {
                Ok(material.to_vec())
            }
            _ => Err(Error::Other("no such keys".to_owned())),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
