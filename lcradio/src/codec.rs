//! libopus: encodes and decodes. `lcradio_core::samples` checks foreign packets before.

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;

use lcradio_core::{CLOCK_RATE, FRAME, MAX_PAYLOAD, MAX_SAMPLES, Profile};
use opusic_sys as opus;
use thiserror::Error;

/// Channels of decoded sound, for any packet.
pub const OUT_CHANNELS: usize = 2;
/// Loss that FEC is made for, in per cent.
const EXPECTED_LOSS: c_int = 10;

/// An error of libopus.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("libopus: {0}")]
pub struct CodecError(String);

fn checked(code: c_int) -> Result<c_int, CodecError> {
    if code >= 0 {
        return Ok(code);
    }
    // SAFETY: it returns a static string with a NUL for every code.
    let text = unsafe { CStr::from_ptr(opus::opus_strerror(code)) };
    Err(CodecError(text.to_string_lossy().into_owned()))
}

/// An encoder for packets of 20 ms.
#[derive(Debug)]
pub struct Encoder {
    state: NonNull<opus::OpusEncoder>,
    channels: u8,
    /// Samples of a frame for each channel.
    frame: u32,
}

impl Encoder {
    /// Makes an encoder for this kind of sound, with 1 or 2 channels, at `bitrate` bits per second.
    pub fn new(profile: Profile, channels: u8, bitrate: u32) -> Result<Self, CodecError> {
        let application = match profile {
            Profile::Voice => opus::OPUS_APPLICATION_VOIP,
            Profile::Music => opus::OPUS_APPLICATION_AUDIO,
        };
        let mut code = 0;
        // SAFETY: all arguments are plain values; `code` is written before it returns.
        let state = unsafe {
            opus::opus_encoder_create(
                CLOCK_RATE as opus::opus_int32,
                channels.into(),
                application,
                &raw mut code,
            )
        };
        checked(code)?;
        let state = NonNull::new(state).ok_or_else(|| CodecError("no encoder".to_owned()))?;
        let mut encoder = Self {
            state,
            channels,
            frame: FRAME,
        };
        encoder.set(opus::OPUS_SET_BITRATE_REQUEST, bitrate as c_int)?;
        if profile == Profile::Voice {
            encoder.set(opus::OPUS_SET_INBAND_FEC_REQUEST, 1)?;
            encoder.set(opus::OPUS_SET_PACKET_LOSS_PERC_REQUEST, EXPECTED_LOSS)?;
        }
        Ok(encoder)
    }

    /// Makes an encoder for a call: speech in packets of 10 ms, with FEC. Of silence it makes
    /// packets of at most two bytes, which are not sent (DTX), but for one each 400 ms.
    pub fn of_call(bitrate: u32) -> Result<Self, CodecError> {
        let mut encoder = Self::new(Profile::Voice, 1, bitrate)?;
        encoder.set(opus::OPUS_SET_DTX_REQUEST, 1)?;
        encoder.frame = FRAME / 2;
        Ok(encoder)
    }

    fn set(&mut self, request: c_int, value: c_int) -> Result<(), CodecError> {
        // SAFETY: the state is of a living encoder, and set requests take one opus_int32.
        checked(unsafe { opus::opus_encoder_ctl(self.state.as_ptr(), request, value) }).map(drop)
    }

    /// Encodes one frame: 960 samples for each channel, 480 of a call, interleaved.
    pub fn encode(&mut self, samples: &[i16]) -> Result<Vec<u8>, CodecError> {
        if samples.len() != self.frame as usize * usize::from(self.channels) {
            return Err(CodecError("not a frame".to_owned()));
        }
        let mut packet = vec![0; MAX_PAYLOAD];
        // SAFETY: `samples` holds `frame` samples per channel, as checked, `packet` its length.
        let length = unsafe {
            opus::opus_encode(
                self.state.as_ptr(),
                samples.as_ptr(),
                self.frame as c_int,
                packet.as_mut_ptr(),
                packet.len() as opus::opus_int32,
            )
        };
        packet.truncate(usize::try_from(checked(length)?).unwrap_or(0));
        Ok(packet)
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: the state is of this encoder alone, and is not used later.
        unsafe { opus::opus_encoder_destroy(self.state.as_ptr()) }
    }
}

/// A decoder to stereo samples at 48 kHz.
#[derive(Debug)]
pub struct Decoder {
    state: NonNull<opus::OpusDecoder>,
}

impl Decoder {
    /// Makes a decoder without history.
    pub fn new() -> Result<Self, CodecError> {
        let mut code = 0;
        // SAFETY: all arguments are plain values; `code` is written before it returns.
        let state = unsafe {
            opus::opus_decoder_create(
                CLOCK_RATE as opus::opus_int32,
                OUT_CHANNELS as c_int,
                &raw mut code,
            )
        };
        checked(code)?;
        let state = NonNull::new(state).ok_or_else(|| CodecError("no decoder".to_owned()))?;
        Ok(Self { state })
    }

    /// Decodes a packet to interleaved sound.
    pub fn decode(&mut self, packet: &[u8]) -> Result<Vec<i16>, CodecError> {
        self.run(Some(packet), MAX_SAMPLES, false)
    }

    /// Returns `samples` in place of a lost packet; from the FEC of the `next` one, if it is here.
    pub fn conceal(&mut self, samples: u32, next: Option<&[u8]>) -> Result<Vec<i16>, CodecError> {
        // libopus conceals multiples of 2.5 ms
        let whole = (samples / 120).max(1) * 120;
        let mut sound = match next {
            Some(next) if whole >= FRAME / 2 => self.run(Some(next), whole, true),
            _ => self.run(None, whole, false),
        }?;
        sound.resize(samples as usize * OUT_CHANNELS, 0);
        Ok(sound)
    }

    fn run(
        &mut self,
        packet: Option<&[u8]>,
        samples: u32,
        fec: bool,
    ) -> Result<Vec<i16>, CodecError> {
        let samples = samples.min(MAX_SAMPLES);
        let mut sound = vec![0; samples as usize * OUT_CHANNELS];
        let (data, length) = packet.map_or((std::ptr::null(), 0), |p| (p.as_ptr(), p.len()));
        let length = opus::opus_int32::try_from(length)
            .map_err(|_| CodecError("a packet of 2 GiB".to_owned()))?;
        // SAFETY: `data` is null, or has `length` bytes; `sound` holds `samples` for each channel.
        let decoded = unsafe {
            opus::opus_decode(
                self.state.as_ptr(),
                data,
                length,
                sound.as_mut_ptr(),
                samples as c_int,
                c_int::from(fec),
            )
        };
        let decoded = usize::try_from(checked(decoded)?).unwrap_or(0);
        sound.truncate(decoded * OUT_CHANNELS);
        Ok(sound)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: the state is of this decoder alone, and is not used later.
        unsafe { opus::opus_decoder_destroy(self.state.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(frame: u32, channels: u8) -> Vec<i16> {
        let samples = frame * FRAME..(frame + 1) * FRAME;
        samples
            .flat_map(|n| {
                let phase = f64::from(n) * 440.0 * std::f64::consts::TAU / f64::from(CLOCK_RATE);
                std::iter::repeat_n((phase.sin() * 8_000.0) as i16, channels.into())
            })
            .collect()
    }

    fn energy(sound: &[i16]) -> f64 {
        let sum: f64 = sound.iter().map(|s| f64::from(*s).powi(2)).sum();
        (sum / sound.len() as f64).sqrt()
    }

    #[test]
    fn sound_goes_through_both_profiles_and_keeps_its_loudness() {
        for (profile, channels, bitrate) in
            [(Profile::Voice, 1, 32_000), (Profile::Music, 2, 96_000)]
        {
            let mut encoder = Encoder::new(profile, channels, bitrate).unwrap();
            let mut decoder = Decoder::new().unwrap();
            let mut last = Vec::new();
            for frame in 0..50 {
                let packet = encoder.encode(&tone(frame, channels)).unwrap();
                assert_eq!(lcradio_core::samples(&packet), Some(FRAME));
                last = decoder.decode(&packet).unwrap();
                assert_eq!(last.len(), FRAME as usize * OUT_CHANNELS);
            }
            let expected = energy(&tone(0, 2));
            assert!((energy(&last) / expected - 1.0).abs() < 0.1, "{profile:?}");
        }
    }

    #[test]
    fn a_lost_packet_is_concealed_and_speech_comes_back_by_fec() {
        let mut encoder = Encoder::new(Profile::Voice, 1, 32_000).unwrap();
        let packets: Vec<_> = (0..20)
            .map(|n| encoder.encode(&tone(n, 1)).unwrap())
            .collect();
        let mut decoder = Decoder::new().unwrap();
        for packet in &packets[..10] {
            decoder.decode(packet).unwrap();
        }
        let concealed = decoder.conceal(FRAME, Some(&packets[11])).unwrap();
        assert_eq!(concealed.len(), FRAME as usize * OUT_CHANNELS);
        assert!(energy(&concealed) > 1_000.0);
        for odd in [1, 119, 120, 500, 960] {
            let concealed = decoder.conceal(odd, None).unwrap();
            assert_eq!(concealed.len(), odd as usize * OUT_CHANNELS);
        }
    }

    #[test]
    fn what_is_no_packet_or_no_frame_is_an_error() {
        let mut decoder = Decoder::new().unwrap();
        assert!(decoder.decode(&[31 << 3 | 3, 0x41, 255, 255]).is_err());
        let mut encoder = Encoder::new(Profile::Music, 2, 96_000).unwrap();
        assert!(encoder.encode(&[0; 7]).is_err());
    }
}
