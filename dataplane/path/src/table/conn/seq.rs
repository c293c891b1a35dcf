//! What a conn remembers of its sequence numbers: their upper halves, 16 bits for each direction.
//!
//! Who is not on the path must guess: a packet changes a conn only when its sequence number lies in
//! the 64 KiB that the last one lay in, or beside them. Of 65,536 values three will do, so that a
//! guess is right in 14.4 bits (RFC 5961, RFC 9293, 3.10.7.4, ask for what is in the window; they
//! know where it begins, we do not).
//!
//! A sender's number goes on by one packet at a time, so the note keeps up with it. When many
//! packets are lost in front of Sluice it falls behind; what was lost passes here once more, and
//! the note catches up, or the acknowledgment number bears witness.

use sluice_wire::flow_head::FlowHead;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ids::Direction;

/// The upper halves of the last sequence numbers, by direction. In DR, where only the client is
/// heard, the second one is that of the client's acknowledgments.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Seqs {
    /// As they lie in packets.
    upper: [u16; 2],
}

/// How far apart two upper halves are: -1, 0 and 1 are neighbours.
fn ahead(upper: u16, of: u16) -> i16 {
    upper.wrapping_sub(of) as i16
}

/// How far ahead of the note a segment is followed whose acknowledgment bears witness, in steps of
/// 64 KiB: what may have been lost in a row, and not half of all numbers.
const FURTHEST: i16 = 256;

fn upper(number: u32) -> u16 {
    (number >> 16) as u16
}

impl Seqs {
    /// Nothing is known.
    pub const UNKNOWN: Seqs = Seqs { upper: [0; 2] };

    /// Whether a segment of this direction is where the last one was: nearly all are.
    #[inline(always)]
    pub fn is_same(&self, direction: Direction, head: &FlowHead) -> bool {
        self.upper[direction.index()] == head.seq_upper()
    }

    /// Whether a sequence number could be that of a segment of this direction.
    pub fn fits(&self, direction: Direction, seq: u32) -> bool {
        (-1..=1).contains(&ahead(upper(seq), u16::from_be(self.upper[direction.index()])))
    }

    /// Whether a segment of this direction with this sequence number may still be on its way: up to
    /// 4 MiB before or behind the last one, as more is seldom in flight.
    pub fn may_be_under_way(&self, direction: Direction, seq: u32) -> bool {
        (-64..=64).contains(&ahead(upper(seq), u16::from_be(self.upper[direction.index()])))
    }

    /// Whether a segment of this direction goes on where the last ones were, or, when what it
    /// acknowledges bears witness for it, lies up to 16 MiB ahead of them: the note
    /// follows it.
    pub fn follow(&mut self, direction: Direction, seq: u32, ack_fits: bool) {
        let steps = ahead(upper(seq), u16::from_be(self.upper[direction.index()]));
        if steps == 1 || (2..=FURTHEST).contains(&steps) && ack_fits {
            self.set(direction, seq);
        }
    }

    /// Note a sequence number of this direction, whatever was known before.
    pub fn set(&mut self, direction: Direction, seq: u32) {
        self.upper[direction.index()] = upper(seq).to_be();
    }

    /// Of a conn that rests: the whole sequence number that its client would send next.
    pub fn of_resting(client_next: u32) -> Self {
        Seqs { upper: [(client_next >> 16) as u16, client_next as u16] }
    }

    /// What [`of_resting`](Self::of_resting) has noted.
    pub fn client_next(&self) -> u32 {
        u32::from(self.upper[0]) << 16 | u32::from(self.upper[1])
    }

    /// In a DR conn's handshake: note the lower half of what the client acknowledges, which tells
    /// one acknowledgment from the next.
    pub fn set_first_ack(&mut self, ack: u32) {
        self.upper[1] = ack as u16;
    }

    /// Whether an acknowledgment differs from that.
    pub fn is_first_ack(&self, ack: u32) -> bool {
        self.upper[1] == ack as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Direction::{FromBackend, FromClient};
    use crate::testkit::Random;

    #[test]
    fn three_of_65536_upper_halves_fit() {
        for at in [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_0000, u32::MAX] {
            let mut seqs = Seqs::UNKNOWN;
            seqs.set(FromBackend, at);
            let fitting: Vec<u32> = (0..=0xffff)
                .map(|u: u32| u << 16 | 0x1234)
                .filter(|seq| seqs.fits(FromBackend, *seq))
                .collect();
            assert_eq!(fitting.len(), 3, "{at:x}");
            assert!(
                seqs.fits(FromBackend, at) && seqs.fits(FromBackend, at.wrapping_add(0x1_0000))
            );
            assert!(seqs.fits(FromBackend, at.wrapping_sub(0x1_0000)));
        }
    }

    /// A sender that goes around the whole space twice, in steps of a packet, some of them lost and
    /// sent again, is followed all the way.
    #[test]
    fn the_note_keeps_up_with_a_sender() {
        let mut random = Random::from_env();
        let mut seqs = Seqs::UNKNOWN;
        let mut seq = 0xfff0_0000_u32;
        seqs.set(FromClient, seq);
        for _ in 0..1_000_000 {
            seq = seq.wrapping_add(random.below(9_000) as u32);
            assert!(seqs.fits(FromClient, seq), "{seq:x} {seqs:?}");
            seqs.follow(FromClient, seq, false);
            if random.below(50) == 0 {
                // An old one, sent again, does not take the note back.
                seqs.follow(FromClient, seq.wrapping_sub(random.below(5_000_000) as u32), true);
            }
        }
    }

    #[test]
    fn a_gap_is_crossed_by_what_was_lost_or_with_a_witness() {
        let mut seqs = Seqs::UNKNOWN;
        seqs.set(FromClient, 0x0010_0000);
        seqs.follow(FromClient, 0x0020_0000, false);
        assert!(seqs.fits(FromClient, 0x0010_0000) && !seqs.fits(FromClient, 0x0020_0000));
        let mut by_witness = seqs;
        by_witness.follow(FromClient, 0x0020_0000, true);
        assert!(by_witness.fits(FromClient, 0x0020_0000));
        for seq in (0x0010_0000..=0x0020_0000).step_by(1_460) {
            seqs.follow(FromClient, seq, false);
        }
        assert!(seqs.fits(FromClient, 0x0020_0000));
    }

    #[test]
    fn a_witness_is_believed_16_mib_ahead_and_no_further() {
        for (ahead, is_followed) in [(256 << 16, true), (257 << 16, false), (u32::MAX >> 1, false)]
        {
            let mut seqs = Seqs::UNKNOWN;
            seqs.set(FromClient, 0xff80_0000);
            let seq = 0xff80_0000_u32.wrapping_add(ahead);
            seqs.follow(FromClient, seq, true);
            assert_eq!(seqs.fits(FromClient, seq), is_followed, "{ahead:x}");
        }
    }
}
