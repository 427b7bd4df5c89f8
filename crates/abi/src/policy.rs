//! The tables of one policy generation (recursive flow classification, Gupta and McKeown 1999). Two
//! generations have room: number `g` lies in slot `g & 1`.
//!
//! A row of decisions has a column for each port class of the node; or, where groups of rows are
//! narrow, one for each class that its group tells apart, and the end of the group's line says which
//! column a port class has. Where groups are scattered, rows are cut into blocks of columns, and these lie in
//! one another's gaps (Tarjan and Yao, "Storing a sparse table", 1979): see [`Scattered`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{Be16, Shared32};

/// Which of the four port tables a protocol uses, and how it is indexed.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortTable {
    /// By destination port.
    Tcp = 0,
    /// By destination port.
    Udp = 1,
    /// By destination port.
    Sctp = 2,
    /// By [`PortTable::icmp4`], [`PortTable::icmp6`], or the protocol number.
    Other = 3,
}

impl PortTable {
    /// The number of tables.
    pub const COUNT: usize = 4;
    /// The entries of a table.
    pub const PORTS: usize = 65536;

    /// The index of an ICMP type in [`PortTable::Other`].
    #[inline(always)]
    #[must_use]
    pub const fn icmp4(icmp_type: u8) -> u16 {
        0x100 | icmp_type as u16
    }

    /// The index of an ICMPv6 type in [`PortTable::Other`].
    #[inline(always)]
    #[must_use]
    pub const fn icmp6(icmp_type: u8) -> u16 {
        0x200 | icmp_type as u16
    }
}

/// The head of a generation: its number, how far its rows lie apart, and what holds for all of it.
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, Default, FromBytes, KnownLayout))]
pub struct Generation {
    /// Its number, not 0. Another number in the slot means that it isn't there.
    pub number: Shared32,
    /// Cells of a row group's line: `row[endpoint_policy * line + peer_class]`.
    pub line: Shared32,
    /// Cells from the beginning of a row to that of the next number's: `decision[row * step + column]`.
    pub step: Shared32,
    /// [`Generation::KEEP_ESTABLISHED`], and [`Generation::columns`] above it.
    pub flags: Shared32,
}

impl Generation {
    /// Established flows live on though it denies them, as long as both ends' addresses belong to whom they
    /// belonged to.
    pub const KEEP_ESTABLISHED: u32 = 1;

    /// The flags with the number of cells at the end of a narrow group's line: the columns of the port
    /// classes and, of a scattered one, [`Scattered::CELLS`].
    #[must_use]
    pub const fn with_columns(flags: u32, cells: u16) -> u32 {
        flags | (cells as u32) << 16
    }

    /// How many cells at the end of a narrow group's line aren't rows.
    #[inline(always)]
    #[must_use]
    pub const fn columns(flags: u32) -> u32 {
        flags >> 16
    }
}

/// The two policies of an endpoint in a generation; 0: not ready, everything is denied;
/// [`EndpointPolicy::OPEN`]: nobody judges. With [`EndpointPolicy::NARROW`] the group's line ends with
/// columns, with [`EndpointPolicy::SCATTERED`] also with a [`Scattered`].
#[repr(C)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, Default, FromBytes, KnownLayout))]
pub struct EndpointPolicy {
    /// The row group for what it opens.
    pub egress: Shared32,
    /// The row group for what is opened to it.
    pub ingress: Shared32,
}

impl EndpointPolicy {
    /// Nobody judges there: that of a node that no policy selects.
    pub const OPEN: u32 = u32::MAX;
    /// The group is narrow.
    // ABI: programs that don't know it take it for a part of the number. Lines of narrow groups have an
    // odd number of cells, so what these programs would read is out of bounds, and they deny.
    pub const NARROW: u32 = 1 << 31;
    /// The group is scattered, and narrow.
    // ABI: as above; a line of an odd number of cells, 2^30 times, is out of bounds as well.
    pub const SCATTERED: u32 = 1 << 30;
    /// What of it numbers the group.
    pub const GROUP: u32 = !(Self::NARROW | Self::SCATTERED);
}

/// Where the rows of a scattered group are: the last cells of its line, behind the columns.
///
/// Row `r`, from 1 on, has the record of cells `decision[records + (r - 1) * stride ..]`: what it decides about
/// columns that have no cell of their own, and for each block of `1 << shift` columns the block's place, or 0
/// if none of its columns has a cell. Column `c` of a block at place `p` has the pair
/// `decision[area + 2 * (p + c % (1 << shift)) ..]`: the place of the block whose the pair is, and what is
/// decided. No two blocks of a group have one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scattered {
    /// Where the record of row 1 begins.
    pub records: u32,
    /// Where the pair at place 0 begins.
    pub area: u32,
    /// Cells of a record.
    pub stride: u16,
    /// Binary logarithm of the columns of a block.
    pub shift: u16,
}

impl Scattered {
    /// The cells that it takes.
    pub const CELLS: u16 = 6;
    /// The cells of a column.
    pub const PAIR: u32 = 2;

    /// As cells, of numbers of 32 bits the lower half first.
    #[must_use]
    pub const fn cells(self) -> [u16; Self::CELLS as usize] {
        let Self { records, area, stride, shift } = self;
        [records as u16, (records >> 16) as u16, area as u16, (area >> 16) as u16, stride, shift]
    }

    /// From cells.
    #[inline(always)]
    #[must_use]
    pub const fn from_cells(cells: [u32; Self::CELLS as usize]) -> Self {
        let [records, records_high, area, area_high, stride, shift] = cells;
        Self {
            records: records_high << 16 | records,
            area: area_high << 16 | area,
            stride: stride as u16,
            shift: shift as u16,
        }
    }

    /// The cell in which a row's record begins: what it decides where a column has no cell.
    #[inline(always)]
    #[must_use]
    pub const fn record(self, row: u32) -> u32 {
        self.records.wrapping_add(row.wrapping_sub(1).wrapping_mul(self.stride as u32))
    }

    /// The block of a column.
    #[inline(always)]
    #[must_use]
    pub const fn block(self, column: u32) -> u32 {
        column >> (self.shift & 15)
    }

    /// The first of a column's cells in a block at a place.
    #[inline(always)]
    #[must_use]
    pub const fn pair(self, place: u32, column: u32) -> u32 {
        let inside = column & ((1 << (self.shift & 15)) - 1);
        self.area.wrapping_add(Self::PAIR.wrapping_mul(place.wrapping_add(inside)))
    }
}

/// The two ways past an endpoint, seen from the endpoint.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// What it opens.
    Egress = 0,
    /// What is opened to it.
    Ingress = 1,
}

/// What is decided about a new flow, and by whom.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Decision {
    /// One of [`Action`]'s numbers; any other denies.
    pub action: u8,
    /// [`Decision::DEFAULT`] and its like.
    pub flags: u8,
    /// Port of the proxy that gets it, for a later action; 0.
    pub proxy_port: Be16,
    /// Names the deciding policies: an index into the plan's cookies.
    pub cookie: u32,
}

impl Decision {
    /// No rule named it: the default of an isolated or of an open endpoint.
    pub const DEFAULT: u8 = 1;
    /// Policies that are tried out would deny it.
    pub const AUDIT: u8 = 2;
    /// What a cell reads as that no packet of a complete plan can reach.
    pub const UNREACHABLE: Self =
        Self { action: Action::Deny as u8, flags: 0, proxy_port: Be16::new(0), cookie: 0 };

    /// A decision.
    #[must_use]
    pub const fn new(action: Action, flags: u8, cookie: u32) -> Self {
        Self { action: action as u8, flags, proxy_port: Be16::new(0), cookie }
    }

    /// It lets the flow pass.
    #[inline(always)]
    #[must_use]
    pub const fn allows(self) -> bool {
        self.action == Action::Allow as u8
    }

    /// No rule named it.
    #[inline(always)]
    #[must_use]
    pub const fn is_default(self) -> bool {
        self.flags & Self::DEFAULT != 0
    }

    /// It passes only because what denies it is tried out.
    #[inline(always)]
    #[must_use]
    pub const fn is_audited(self) -> bool {
        self.flags & Self::AUDIT != 0
    }

    /// The number of the [`Response`] that the sender gets to what it denies.
    #[inline(always)]
    #[must_use]
    pub const fn response_number(self) -> u8 {
        self.action.saturating_sub(Action::Allow as u8)
    }

    /// What the sender is told of what it denies.
    #[must_use]
    pub const fn response(self) -> Response {
        Response::from_number(self.response_number())
    }

    /// The flag of an event that says that it passes only because what denies it is tried out; or 0.
    #[inline(always)]
    #[must_use]
    pub const fn audited(self, direction: Direction) -> u8 {
        (self.flags & Self::AUDIT) << direction as u8
    }
}

/// What happens to a flow.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Dropped in silence.
    Deny = 0,
    /// Passed on.
    Allow = 1,
    /// Dropped, and answered with [`Response::Icmp`].
    DenyIcmp = 2,
    /// Dropped, and answered with [`Response::Reset`].
    DenyReset = 3,
}

impl Action {
    /// Dropped, and answered so.
    #[must_use]
    pub const fn deny(response: Response) -> Self {
        match response {
            Response::Silence => Self::Deny,
            Response::Icmp => Self::DenyIcmp,
            Response::Reset => Self::DenyReset,
        }
    }
}

/// What the sender of a denied packet is told; from the quietest to the loudest. Displays as `silence`,
/// `icmp` or `reset`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Response {
    /// Nothing.
    #[default]
    Silence = 0,
    /// An ICMP error: communication administratively prohibited (ICMP type 3, code 13, RFC 1812,
    /// section 5.2.7.1; ICMPv6 type 1, code 1, RFC 4443, section 3.1).
    Icmp = 1,
    /// For TCP a reset (RFC 9293, section 3.10.7.1), for all else what [`Response::Icmp`] says.
    Reset = 2,
}

impl Response {
    /// From its number; silence if it is nobody's.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Icmp,
            2 => Self::Reset,
            _ => Self::Silence,
        }
    }
}

impl core::fmt::Display for Response {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Self::Silence => "silence",
            Self::Icmp => "icmp",
            Self::Reset => "reset",
        })
    }
}

/// The number of a decision that stands for "this end isn't local, nobody judged here".
pub const NOT_JUDGED: u32 = u32::MAX;

/// What was decided about a flow: the numbers of the decisions in their generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Judgement {
    /// By the initiator's egress policy; [`NOT_JUDGED`] if it isn't local.
    pub egress: u32,
    /// By the responder's ingress policy; [`NOT_JUDGED`] if it isn't local.
    pub ingress: u32,
}

impl Judgement {
    /// Nothing was decided.
    pub const NONE: Self = Self { egress: NOT_JUDGED, ingress: NOT_JUDGED };
}

const _: () = assert!(size_of::<Generation>() == 16 && size_of::<EndpointPolicy>() == 8);
const _: () = assert!(size_of::<Decision>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_flags_come_back() {
        let flags = Generation::with_columns(Generation::KEEP_ESTABLISHED, u16::MAX);
        assert_eq!(Generation::columns(flags), 65_535);
        assert_eq!(flags & Generation::KEEP_ESTABLISHED, Generation::KEEP_ESTABLISHED);
        assert_eq!(Generation::columns(Generation::KEEP_ESTABLISHED), 0);
    }

    #[test]
    fn where_rows_are_scattered_comes_back() {
        let told = Scattered { records: 0x1_0002, area: 0xffff_fffe, stride: 17, shift: 6 };
        assert_eq!(Scattered::from_cells(told.cells().map(u32::from)), told);
        assert_eq!((told.record(3), told.block(130)), (0x1_0002 + 34, 2));
        let small = Scattered { area: 100, ..told };
        assert_eq!(small.pair(7, 130), 100 + 2 * (7 + 2));
    }

    #[test]
    fn what_denies_answers_as_it_was_told() {
        for response in [Response::Silence, Response::Icmp, Response::Reset] {
            let decision = Decision::new(Action::deny(response), 0, 1);
            assert!(!decision.allows());
            assert_eq!(decision.response(), response);
        }
        assert_eq!(Decision::new(Action::Allow, 0, 1).response(), Response::Silence);
        let unknown = Decision { action: 4, ..Decision::UNREACHABLE };
        assert_eq!((unknown.allows(), unknown.response()), (false, Response::Silence));
    }
}
