//! What a receiver is told about congestion in the tunnel (RFC 6040, section 4.2).

use flowgate_abi::DropReason;

/// Not of an ECN-capable transport (RFC 3168, section 5).
pub const NOT_ECT: u8 = 0;
/// ECN-capable, of the newer kind (RFC 8311).
pub const ECT_1: u8 = 1;
/// ECN-capable.
pub const ECT_0: u8 = 2;
/// Congestion experienced.
pub const CE: u8 = 3;

/// The ECN field that the inner packet goes on with, of both packets' fields.
///
/// # Errors
/// [`DropReason::CongestionMark`]: the only way left to tell the sender.
#[inline(always)]
pub const fn combined(inner: u8, outer: u8) -> Result<u8, DropReason> {
    match (inner, outer) {
        (NOT_ECT, CE) => Err(DropReason::CongestionMark),
        (NOT_ECT | CE, _) => Ok(inner),
        (_, CE) => Ok(CE),
        (ECT_0, ECT_1) => Ok(ECT_1),
        _ => Ok(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figure 4 of the RFC, row by row: inner Not-ECT, ECT(0), ECT(1), CE; outer in the same order.
    #[test]
    fn the_table_of_the_rfc() {
        const COLUMNS: [u8; 4] = [NOT_ECT, ECT_0, ECT_1, CE];
        let drop = None;
        let rows = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), drop]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in rows {
            for (outer, expected) in COLUMNS.into_iter().zip(row) {
                assert_eq!(combined(inner, outer).ok(), expected, "{inner} in {outer}");
            }
        }
    }
}
