//! What a link costs, as it is advertised.

use std::time::Duration;

use crate::wire::body::MAX_COST;

/// Cost of the best link, in microseconds of round trip: below this, hops count and nothing else.
const FLOOR: f64 = 1000.0;
/// Ratio of neighbouring levels.
const STEP: f64 = 1.25;
/// STEP to the power of 1.5: what is advertised changes only when the measurement is further away than this.
const HYSTERESIS: f64 = 1.397_542;

/// The cost to advertise for a link with this smoothed round trip and share of probes lost (0 to 1), given what was advertised
/// `previous`ly. In microseconds of round trip, at least 1000; loss weighs as 1/(1−loss)⁴, because TCP suffers from
/// it far more than from the retransmissions alone. Levels are 25 % apart, and the level changes only for a change of more than
/// one and a half levels.
pub fn quantise_cost(rtt: Duration, loss: f64, previous: Option<u32>) -> u32 {
    let arrives = if loss.is_finite() { (1.0 - loss).clamp(0.05, 1.0) } else { 1.0 };
    let raw = (rtt.as_secs_f64() * 1e6).max(FLOOR) / arrives.powi(4);
    if let Some(kept) = previous.filter(|kept| (1..=MAX_COST).contains(kept)) {
        let kept_raw = f64::from(kept);
        if raw < kept_raw * HYSTERESIS && raw > kept_raw / HYSTERESIS {
            return kept;
        }
    }
    let mut level = FLOOR;
    while raw > level * STEP.sqrt() && level < f64::from(MAX_COST) {
        level *= STEP;
    }
    // The cast saturates, and the levels are far below what fits.
    (level.round() as u32).min(MAX_COST)
}
