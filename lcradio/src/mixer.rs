//! Mixes the casters of a station: buffers and decodes each, and resamples it to the player's pace.

use std::time::{Duration, Instant};

use lcradio_core::{
    CLOCK_RATE, FRAME, Following, Frame, Latency, MAX_CASTERS, Playout, PlayoutStats, Resampler,
    SoundPacket, StepState,
};

use crate::codec::{CodecError, Decoder, OUT_CHANNELS};

/// Time without packets after which a caster does not set the pace.
const QUIET: Duration = Duration::from_secs(2);

/// The clock of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// That of the first active caster: its samples stay as they are.
    Caster,
    /// That of a device, which requests frames; this host's, of a pipe with the sound of a call.
    Device,
}

/// One caster.
struct Voice {
    playout: Playout,
    decoder: Decoder,
    resampler: Resampler,
    /// Sound after the last output.
    ready: Vec<i16>,
    heard_at: Instant,
    /// Time between the request of a frame and its sound, if it plays in step.
    lead: Duration,
}

impl Voice {
    /// Fills up `samples` of sound, of both channels, to be played at `at`.
    fn fill(&mut self, samples: usize, pace_ppm: f64, at: Instant) {
        // of the same moment as the pace: so the caster that sets it has exactly 0
        let faster_ppm = self.playout.speed_ppm() - pace_ppm;
        let at = at + self.lead;
        while self.ready.len() < samples {
            let ahead = (self.ready.len() / OUT_CHANNELS) as f64 / f64::from(CLOCK_RATE);
            let frame = self.playout.poll_frame(at + Duration::from_secs_f64(ahead));
            let sound = decoded(&mut self.decoder, frame);
            self.resampler.process(&sound, faster_ppm, &mut self.ready);
        }
    }
}

/// All casters of a station.
pub struct Mixer {
    latency: Latency,
    clock: Clock,
    voices: [Option<Box<Voice>>; MAX_CASTERS],
}

impl Mixer {
    /// Makes a mixer without casters.
    pub fn new(latency: Latency, clock: Clock) -> Self {
        Self {
            latency,
            clock,
            voices: [const { None }; MAX_CASTERS],
        }
    }

    /// Takes a packet; false if it is too late.
    pub fn push(&mut self, packet: SoundPacket) -> Result<bool, CodecError> {
        let Some(place) = self.voices.get_mut(usize::from(packet.caster)) else {
            return Ok(false);
        };
        let voice = match place {
            Some(voice) => voice,
            None => place.insert(Box::new(Voice {
                playout: Playout::new(self.latency, packet.arrival),
                decoder: Decoder::new()?,
                resampler: Resampler::default(),
                ready: Vec::new(),
                heard_at: packet.arrival,
                lead: Duration::ZERO,
            })),
        };
        voice.heard_at = packet.arrival;
        Ok(voice.playout.push(packet))
    }

    /// Ends a caster.
    pub fn end(&mut self, caster: u8) {
        if let Some(Some(voice)) = self.voices.get_mut(usize::from(caster)) {
            voice.playout.end();
        }
    }

    /// Lets a caster's sound follow its clock, or no longer. `lead`: see [`Playout::follow`].
    pub fn follow(
        &mut self,
        caster: u8,
        following: Following,
        lead: Option<Duration>,
        now: Instant,
    ) {
        if let Some(Some(voice)) = self.voices.get_mut(usize::from(caster)) {
            voice.playout.follow(following, lead, now);
            let is_in_step = voice.playout.step().is_some_and(|step| !step.is_behind);
            voice.lead = lead.filter(|_| is_in_step).unwrap_or_default();
        }
    }

    /// Returns the state of the first caster that is played in step.
    pub fn step(&self) -> Option<StepState> {
        self.heard().find_map(|voice| voice.playout.step())
    }

    /// Returns whether a caster is not played in step as the lead is not known.
    pub fn is_leadless(&self) -> bool {
        self.heard().any(|voice| voice.playout.is_leadless())
    }

    fn heard(&self) -> impl Iterator<Item = &Voice> {
        self.voices.iter().flatten().map(|voice| &**voice)
    }

    /// Returns the output's speed above this host's clock, in parts per million. For a device it is
    /// 0: its clock is unknown here, and its requests set the pace.
    pub fn pace_ppm(&self, now: Instant) -> f64 {
        match self.clock {
            Clock::Caster => self.drift_ppm(now),
            Clock::Device => 0.0,
        }
    }

    /// Returns the first active caster's clock speed above this host's, in parts per million.
    pub fn drift_ppm(&self, now: Instant) -> f64 {
        let mut heard = self.heard();
        let first = heard.find(|voice| now.saturating_duration_since(voice.heard_at) < QUIET);
        first.map_or(0.0, |first| first.playout.speed_ppm())
    }

    /// Returns a frame of all casters, to be played at `at`: 20 ms, or 10 ms of a call.
    pub fn frame(&mut self, at: Instant) -> Vec<i16> {
        self.frame_of_each(at, |_, _| {})
    }

    /// The same; passes the sound of each caster to `hear`.
    pub fn frame_of_each(&mut self, at: Instant, mut hear: impl FnMut(u8, &[i16])) -> Vec<i16> {
        let pace_ppm = self.pace_ppm(at);
        let samples = self.latency.frame() as usize * OUT_CHANNELS;
        let mut mixed = vec![0_i16; samples];
        for (caster, voice) in (0..).zip(&mut self.voices) {
            let Some(voice) = voice else { continue };
            voice.fill(samples, pace_ppm, at);
            hear(caster, &voice.ready[..samples]);
            for (sum, sample) in mixed.iter_mut().zip(voice.ready.drain(..samples)) {
                *sum = sum.saturating_add(sample);
            }
        }
        mixed
    }

    /// Returns the metrics: the longest buffer, and sums.
    pub fn stats(&self) -> PlayoutStats {
        let of_each = self.heard().map(|voice| voice.playout.stats());
        of_each.fold(PlayoutStats::default(), PlayoutStats::plus)
    }
}

/// Decodes a frame. Undecodable packets become silence.
fn decoded(decoder: &mut Decoder, frame: Frame) -> Vec<i16> {
    let silence = |samples: u32| vec![0; samples as usize * OUT_CHANNELS];
    match frame {
        Frame::Packet(packet) => {
            let sound = decoder.decode(&packet.payload);
            sound.unwrap_or_else(|_| silence(packet.samples))
        }
        Frame::Lost { samples, next } => {
            // a call's are 10 ms; of longer packets libopus uses no part
            let next = next.as_deref().filter(|_| samples >= FRAME / 2);
            let sound = decoder.conceal(samples, next);
            sound.unwrap_or_else(|_| silence(samples))
        }
        Frame::Silence { samples } => silence(samples),
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use lcradio_core::Profile;

    use super::*;
    use crate::codec::Encoder;

    const FRAME_TIME: Duration = Duration::from_millis(20);

    /// A tone, from a caster with a fast clock.
    struct Tone {
        encoder: Encoder,
        caster: u8,
        hz: f64,
        ppm: f64,
        sent: u32,
    }

    impl Tone {
        fn new(caster: u8, hz: f64, ppm: f64) -> Self {
            let encoder = Encoder::new(Profile::Music, 2, 96_000).unwrap();
            Self {
                encoder,
                caster,
                hz,
                ppm,
                sent: 0,
            }
        }

        fn packet(&mut self) -> Vec<u8> {
            let samples = self.sent * FRAME..(self.sent + 1) * FRAME;
            let sound: Vec<i16> = samples
                .flat_map(|n| {
                    let phase = f64::from(n) * self.hz * TAU / f64::from(CLOCK_RATE);
                    [(phase.sin() * 8_000.0) as i16; 2]
                })
                .collect();
            self.sent += 1;
            self.encoder.encode(&sound).unwrap()
        }

        fn sends_until(&mut self, begun: Instant, now: Instant, mixer: &mut Mixer) {
            loop {
                let arrival = begun + (FRAME_TIME * self.sent).div_f64(1.0 + self.ppm / 1e6);
                if arrival > now {
                    return;
                }
                let packet = SoundPacket {
                    caster: self.caster,
                    session: self.caster.into(),
                    index: self.sent.into(),
                    timestamp: u64::from(self.sent * FRAME),
                    samples: FRAME,
                    payload: self.packet(),
                    arrival,
                };
                mixer.push(packet).unwrap();
            }
        }
    }

    /// Returns the strength of a tone in a second of sound.
    fn strength(sound: &[i16], hz: f64) -> f64 {
        let left = sound.iter().step_by(2).enumerate();
        let (sin, cos) = left.fold((0.0, 0.0), |(sin, cos), (n, sample)| {
            let phase = n as f64 * hz * TAU / f64::from(CLOCK_RATE);
            let sample = f64::from(*sample);
            (sin + sample * phase.sin(), cos + sample * phase.cos())
        });
        2.0 * f64::hypot(sin, cos) / (sound.len() as f64 / 2.0)
    }

    #[test]
    fn casters_with_clocks_apart_are_heard_together_for_minutes() {
        // of a device 150 ppm faster than this host's clock; or of the first caster, 200 ppm faster
        for (clock, device_ppm, faster) in
            [(Clock::Caster, 0.0, 200.0), (Clock::Device, 150.0, 150.0)]
        {
            let begun = Instant::now();
            let mut mixer = Mixer::new(Latency::Auto, clock);
            // 400 ppm apart: 48 ms in two minutes, more than is buffered
            let mut tones = [Tone::new(0, 440.0, 200.0), Tone::new(5, 1_000.0, -200.0)];
            let (mut at, mut last) = (begun, Vec::new());
            let mut settled = mixer.stats();
            while at < begun + Duration::from_secs(120) {
                for tone in &mut tones {
                    tone.sends_until(begun, at, &mut mixer);
                }
                last.extend(mixer.frame(at));
                let second = CLOCK_RATE as usize * OUT_CHANNELS;
                last.drain(..last.len().saturating_sub(second));
                at += FRAME_TIME.div_f64(1.0 + (mixer.pace_ppm(at) + device_ppm) / 1e6);
                if at < begun + Duration::from_secs(30) {
                    settled = mixer.stats();
                }
            }
            let stats = mixer.stats();
            assert_eq!(stats.underruns, settled.underruns, "{clock:?} {stats:?}");
            assert_eq!((stats.resyncs, stats.stretched), (0, settled.stretched));
            assert!(stats.buffered < Duration::from_millis(100), "{stats:?}");
            // each tone by this host's clock, in the player's seconds
            let heard = |hz: f64, ppm: f64| hz * (1.0 + (ppm - faster) / 1e6);
            let tones = [heard(440.0, 200.0), heard(1_000.0, -200.0)];
            for (hz, expected) in [(tones[0], 8_000.0), (tones[1], 8_000.0), (700.0, 0.0)] {
                let strength = strength(&last, hz);
                let differs = (strength - expected).abs();
                assert!(differs < 800.0, "{clock:?}, {hz} Hz: {strength}");
            }
        }
    }

    #[test]
    fn one_caster_is_put_out_sample_by_sample_as_it_was_sent() {
        let begun = Instant::now();
        let mut mixer = Mixer::new(Latency::Auto, Clock::Caster);
        let mut tone = Tone::new(0, 440.0, 100.0);
        let (mut at, mut heard) = (begun, Vec::new());
        while at < begun + Duration::from_secs(20) {
            tone.sends_until(begun, at, &mut mixer);
            heard.extend(mixer.frame(at));
            at += FRAME_TIME.div_f64(1.0 + mixer.pace_ppm(at) / 1e6);
        }
        let (mut tone, mut decoder) = (Tone::new(0, 440.0, 0.0), Decoder::new().unwrap());
        let packets = (0..900).map(|_| tone.packet());
        let sent: Vec<i16> = packets
            .flat_map(|packet| decoder.decode(&packet).unwrap())
            .collect();
        let first = |sound: &[i16]| sound.iter().position(|s| *s != 0).unwrap();
        let (sent, heard) = (&sent[first(&sent)..], &heard[first(&heard)..]);
        assert!(heard.len() > sent.len());
        let differs = sent.iter().zip(heard).position(|(a, b)| a != b);
        assert_eq!(differs, None);
    }
}
