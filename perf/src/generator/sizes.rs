//! Frame sizes: one, IMIX, or a weighted list.
//!
//! Sizes are those on the wire with the frame check sequence, as in RFC 2544: a frame of 64 bytes
//! takes 60 bytes of an mbuf, as the device adds the last four.

use std::fmt;
use std::str::FromStr;

use super::GenError;

/// Frame check sequence, in bytes.
pub const FCS_BYTES: u16 = 4;
/// Preamble, start of frame and the gap between two frames, in bytes: what a frame takes on the
/// wire beside itself.
pub const WIRE_OVERHEAD_BYTES: u16 = 20;
/// The smallest and the largest frame without a VLAN tag, in bytes, with frame check sequence.
pub const LIMITS: (u16, u16) = (64, 1518);
/// Most sizes in a list.
pub const MOST_SIZES: usize = 16;
/// Simple IMIX: 7 parts of 64, 4 of 594, 1 of 1518 bytes.
const IMIX: [Weighted; 3] = [
    Weighted { bytes: 64, weight: 7 },
    Weighted { bytes: 594, weight: 4 },
    Weighted { bytes: 1518, weight: 1 },
];

/// A size and its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weighted {
    /// Bytes on the wire, with frame check sequence.
    pub bytes: u16,
    /// Its share: this many of the sum of all weights.
    pub weight: u32,
}

/// What sizes frames have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(Vec<Weighted>);

impl Sizes {
    /// The sizes with their weights.
    pub fn list(&self) -> &[Weighted] {
        &self.0
    }

    /// Mean of what a frame takes on the wire, in bytes, with preamble and gap.
    pub fn mean_wire_bytes(&self) -> f64 {
        let weights: f64 = self.0.iter().map(|w| f64::from(w.weight)).sum();
        let bytes: f64 = self.0.iter().map(|w| f64::from(w.bytes) * f64::from(w.weight)).sum();
        bytes / weights + f64::from(WIRE_OVERHEAD_BYTES)
    }

    /// Frames per second that fill a link.
    pub fn line_rate_pps(&self, link_mbps: u32) -> f64 {
        f64::from(link_mbps) * 1e6 / (8.0 * self.mean_wire_bytes())
    }

    /// Which size each of a round of frames has, by index: every size by its weight, spread evenly
    /// (smooth weighted round robin).
    pub fn round(&self) -> Vec<u8> {
        let divisor = self.0.iter().fold(0, |a, w| gcd(a, w.weight)).max(1);
        let weights: Vec<i64> = self.0.iter().map(|w| i64::from(w.weight / divisor)).collect();
        let total: i64 = weights.iter().sum();
        let mut credit = vec![0; weights.len()];
        (0..total)
            .map(|_| {
                credit.iter_mut().zip(&weights).for_each(|(c, w)| *c += w);
                let best = (0..credit.len()).rev().max_by_key(|i| credit[*i]).unwrap_or(0);
                credit[best] -= total;
                best as u8
            })
            .collect()
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes(vec![Weighted { bytes: LIMITS.0, weight: 1 }])
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [one] => write!(f, "{}", one.bytes),
            list => {
                let parts: Vec<String> =
                    list.iter().map(|w| format!("{}:{}", w.bytes, w.weight)).collect();
                f.write_str(&parts.join(","))
            }
        }
    }
}

impl FromStr for Sizes {
    type Err = GenError;

    /// `64`, `imix`, or `SIZE:WEIGHT,…`; a weight is 1 when absent.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || {
            let (least, most) = LIMITS;
            let expected = format!(
                "a frame size from {least} to {most} bytes with the frame check sequence (64, 128, \
                 512, 1518, …), \"imix\", or a list of up to {MOST_SIZES} as \
                 \"64:7,594:4,1518:1\" with weights from 1 to 1000"
            );
            GenError::FrameSize { value: text.to_owned(), expected }
        };
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Sizes(IMIX.to_vec()));
        }
        let parse = |part: &str| -> Option<Weighted> {
            let (bytes, weight) = part.trim().split_once(':').unwrap_or((part.trim(), "1"));
            let (bytes, weight) = (bytes.parse().ok()?, weight.parse().ok()?);
            let good = (LIMITS.0..=LIMITS.1).contains(&bytes) && (1..=1_000).contains(&weight);
            good.then_some(Weighted { bytes, weight })
        };
        let list: Option<Vec<Weighted>> = text.split(',').map(parse).collect();
        match list {
            Some(list) if list.len() <= MOST_SIZES => Ok(Sizes(list)),
            _ => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(text: &str) -> Sizes {
        text.parse().unwrap()
    }

    #[test]
    fn sizes_are_read_and_shown() {
        for text in ["64", "1518", "64:7,594:4,1518:1", "128:1,512:3"] {
            assert_eq!(sizes(text).to_string(), text);
        }
        assert_eq!(sizes("imix").to_string(), "64:7,594:4,1518:1");
        assert_eq!(sizes("64, 128").to_string(), "64:1,128:1");
        assert_eq!(Sizes::default(), sizes("64"));
    }

    #[test]
    fn bad_sizes_are_named() {
        for bad in ["63", "1519", "0", "-64", "", "64,", "64:0", "64:x", "64:1001", "big", "60.5"] {
            let error = bad.parse::<Sizes>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("traffic.sizes is {bad:?}: expected a frame size")));
            assert!(error.contains("64 to 1518"), "{error}");
        }
        assert!(vec!["64"; 17].join(",").parse::<Sizes>().is_err());
    }

    #[test]
    fn a_round_keeps_the_weights_and_spreads_them() {
        let round = sizes("imix").round();
        assert_eq!(round.len(), 12);
        let count = |index: u8| round.iter().filter(|i| **i == index).count();
        assert_eq!((count(0), count(1), count(2)), (7, 4, 1));
        let longest_run = round.chunk_by(|a, b| a == b).map(<[u8]>::len).max();
        assert!(longest_run <= Some(2), "{round:?}");
        assert_eq!(sizes("64:500,128:500").round(), [0, 1]);
        assert_eq!(sizes("64").round(), [0]);
    }

    #[test]
    fn line_rate_is_that_of_ethernet() {
        // The well-known 14.88 Mpps of 64 bytes at 10 Gbit/s.
        assert_eq!(sizes("64").line_rate_pps(10_000).round(), 14_880_952.0);
        assert_eq!(sizes("1518").line_rate_pps(10_000).round(), 812_744.0);
        let mean = (7.0 * 64.0 + 4.0 * 594.0 + 1518.0) / 12.0 + 20.0;
        assert!((sizes("imix").mean_wire_bytes() - mean).abs() < 1e-9);
    }
}
