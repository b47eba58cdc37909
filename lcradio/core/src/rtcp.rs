//! Sender's reports (RTCP, RFC 3550, 6.4.1) of public stations, for foreign players' timing.
//!
//! A compound packet: SR without report blocks, and SDES with a CNAME per session (RFC 7022).

use librecast::time::{Duration, UnixTime};

use librecast::wire::Writer;

/// Time between two reports (RFC 3550, 6.2: at least 5 s).
pub const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Packet type SR (RFC 3550 §12.1).
const SENDER_REPORT: u8 = 200;
/// Packet type SDES (RFC 3550 §12.1).
const SOURCE_DESCRIPTION: u8 = 202;
/// SDES item of the canonical name (RFC 3550 §12.2).
const CNAME: u8 = 1;
/// Seconds from 1900, the epoch of NTP, to 1970.
const NTP_OFFSET: u64 = 2_208_988_800;

/// The content of a report.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SenderReport {
    pub ssrc: u32,
    /// The wall clock now.
    pub time: UnixTime,
    /// The timestamp of this moment.
    pub timestamp: u32,
    pub packets: u32,
    /// Payload bytes.
    pub bytes: u32,
    /// Identifies the session.
    pub name: [u8; 8],
}

impl SenderReport {
    pub fn write(&self) -> Vec<u8> {
        let mut w = Writer::new();
        // length in words, less one
        w.u8(0x80).u8(SENDER_REPORT).u16(6).u32(self.ssrc);
        let fraction = (self.time.as_millis() % 1_000) * (1 << 32) / 1_000;
        let seconds = self.time.as_secs() + NTP_OFFSET;
        w.u32(seconds as u32).u32(fraction as u32);
        w.u32(self.timestamp).u32(self.packets).u32(self.bytes);
        let cname: String = self.name.iter().map(|byte| format!("{byte:02x}")).collect();
        // SSRC, item of 2 + 16 bytes, and two zeros to a whole word
        w.u8(0x81).u8(SOURCE_DESCRIPTION).u16(6).u32(self.ssrc);
        w.u8(CNAME).u8(16).put(cname.as_bytes()).u16(0);
        w.into_vec()
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn the_report_is_frozen() {
        let report = SenderReport {
            ssrc: 0x0102_0304,
            time: UnixTime::from_millis(1_500),
            timestamp: 0x0a0b_0c0d,
            packets: 50,
            bytes: 6_000,
            name: [0xab; 8],
        };
        let packet = report.write();
        // the length fields are right
        assert_eq!(packet.len(), 7 * 4 + 7 * 4);
        assert_eq!(
            HEXLOWER.encode(&packet),
            "80c8000601020304\
             83aa7e81800000000a0b0c0d0000003200001770\
             81ca0006010203040110616261626162616261626162616261620000"
                .replace(' ', "")
        );
    }
}
