//! Numbers that look random and are the same on every machine (`SplitMix64`).

pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// 32 bits.
    pub(super) fn bits(&mut self) -> u32 {
        u32::try_from(self.word() >> 32).unwrap_or(0)
    }

    /// 128 bits.
    pub(super) fn wide(&mut self) -> u128 {
        u128::from(self.word()) << 64 | u128::from(self.word())
    }

    /// Below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        let product = u128::from(self.word()) * limit as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    /// The place of a share, each as often as it says.
    pub(super) fn share(&mut self, shares: &[u32]) -> usize {
        let mut at = self.below(shares.iter().sum::<u32>() as usize);
        for (place, share) in shares.iter().enumerate() {
            if at < *share as usize {
                return place;
            }
            at -= *share as usize;
        }
        0
    }

    /// Below `limit`, the k-th about with weight 1/k.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place among some thousands"
    )]
    pub(super) fn zipf(&mut self, limit: usize) -> usize {
        let part = self.below(1 << 30) as f64 / f64::from(1 << 30);
        ((limit as f64 + 1.0).powf(part) - 1.0) as usize
    }
}
