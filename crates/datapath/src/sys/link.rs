//! What a link is: one question to route netlink (RFC 3549), in this thread's network namespace.

use std::io;

use flowgate_abi::Mac;

use super::syscall;
use crate::lb::XdpMode;

/// A link of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its interface index.
    pub(crate) ifindex: u32,
    /// Its Ethernet address.
    pub(crate) mac: Mac,
    /// Its kind (`veth`, `netkit`, ...); empty for hardware.
    pub(crate) kind: String,
    /// The interface index of its other end.
    pub(crate) peer: Option<u32>,
    /// The network namespace of its other end, if that is another one, by this one's number for it.
    pub(crate) peer_netns: Option<u32>,
    /// Bytes of the largest IP packet that it carries.
    pub(crate) mtu: u32,
    /// The kernel's number for the XDP program that is there.
    pub(crate) xdp_program: Option<u32>,
    /// In which mode it is there; `None`: in none, in several, or in hardware.
    pub(crate) xdp_mode: Option<XdpMode>,
    /// Frames that it dropped in sending since it was made.
    pub(crate) tx_dropped: u64,
}

const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLA_F_NESTED: u16 = 1 << 15;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_STATS64: u16 = 23;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_TARGET_NETNSID: u16 = 46;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_EXPECTED_FD: u16 = 8;
/// Where a link's statistics have `tx_dropped` (`struct rtnl_link_stats64`).
const TX_DROPPED: usize = 7 * 8;
/// Bytes of a name (`IFNAMSIZ`, less the NUL).
const LONGEST_NAME: usize = 15;
const HEADER: usize = 16;
const IFINFO: usize = 16;

impl Link {
    /// By name.
    pub(crate) fn by_name(name: &str) -> io::Result<Self> {
        // The kernel would stop at the NUL, and take what is in front of it for the name.
        if name.is_empty() || name.len() > LONGEST_NAME || name.contains('\0') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no interface has such a name",
            ));
        }
        parse(&syscall::route_request(&request(name))?)
    }

    /// By index.
    pub(crate) fn by_index(ifindex: u32) -> io::Result<Self> {
        let message = message(RTM_GETLINK, NLM_F_REQUEST, ifindex, &[]);
        parse(&syscall::route_request(&message)?)
    }

    /// The other end of a pair, also in another network namespace: there the caller needs `CAP_NET_ADMIN`. `None`: it has none.
    pub(crate) fn other_end(&self) -> io::Result<Option<Self>> {
        let Some(peer) = self.peer else { return Ok(None) };
        let attributes = self.peer_netns.map_or_else(Vec::new, |netns| {
            [8u16.to_ne_bytes(), IFLA_TARGET_NETNSID.to_ne_bytes()]
                .into_iter()
                .flatten()
                .chain(netns.to_ne_bytes())
                .collect()
        });
        let message = message(RTM_GETLINK, NLM_F_REQUEST, peer, &attributes);
        parse(&syscall::route_request(&message)?).map(Some)
    }

    /// Has an interface run another XDP program, without a link that holds it: descriptors, of which -1 is none, and
    /// flags (`XDP_FLAGS_*`, `include/uapi/linux/if_link.h`; Linux 5.7).
    pub(crate) fn exchange_xdp(
        ifindex: u32,
        program: i32,
        (expected, flags): (i32, u32),
    ) -> io::Result<()> {
        let mut attributes = Vec::new();
        let values = [
            (IFLA_XDP_FD, program.to_ne_bytes()),
            (IFLA_XDP_FLAGS, flags.to_ne_bytes()),
            (IFLA_XDP_EXPECTED_FD, expected.to_ne_bytes()),
        ];
        // Without a program that is expected, none is.
        let values = &values[..if expected < 0 { 2 } else { 3 }];
        attributes.extend((4 + 8 * values.len() as u16).to_ne_bytes());
        attributes.extend((IFLA_XDP | NLA_F_NESTED).to_ne_bytes());
        for (kind, value) in values {
            attributes.extend(8u16.to_ne_bytes());
            attributes.extend(kind.to_ne_bytes());
            attributes.extend(value);
        }
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        let answer = syscall::route_request(&message(RTM_SETLINK, flags, ifindex, &attributes))?;
        acknowledged(&answer)
    }
}

/// What the kernel says of a change (`struct nlmsgerr`).
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    match answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()) {
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "netlink answer too short")),
        Some(bytes) => match i32::from_ne_bytes(bytes) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(-error)),
        },
    }
}

/// A request about one link, with attributes.
fn message(kind: u16, flags: u16, ifindex: u32, attributes: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + IFINFO + attributes.len());
    message.extend(((HEADER + IFINFO + attributes.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.resize(HEADER + 4, 0);
    message.extend(ifindex.to_ne_bytes());
    message.resize(HEADER + IFINFO, 0);
    message.extend(attributes);
    message
}

fn request(name: &str) -> Vec<u8> {
    let mut attribute = ((4 + name.len() + 1) as u16).to_ne_bytes().to_vec();
    attribute.extend(IFLA_IFNAME.to_ne_bytes());
    attribute.extend(name.as_bytes());
    attribute.push(0);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    message(RTM_GETLINK, NLM_F_REQUEST, 0, &attribute)
}

fn parse(answer: &[u8]) -> io::Result<Link> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "netlink answer too short");
    let kind = u16::from_ne_bytes(answer.get(4..6).ok_or_else(short)?.try_into().expect("2 bytes"));
    let word = |at: usize| -> io::Result<i32> {
        Ok(i32::from_ne_bytes(answer.get(at..at + 4).ok_or_else(short)?.try_into().expect("4")))
    };
    // NLMSG_ERROR
    if kind == 2 {
        return Err(io::Error::from_raw_os_error(-word(HEADER)?));
    }
    let mut link = Link {
        ifindex: word(HEADER + 4)? as u32,
        mac: [0; 6],
        kind: String::new(),
        peer: None,
        peer_netns: None,
        mtu: 0,
        xdp_program: None,
        xdp_mode: None,
        tx_dropped: 0,
    };
    let number = |value: &[u8]| value.try_into().map(u32::from_ne_bytes);
    for (attribute, value) in attributes(answer.get(HEADER + IFINFO..).ok_or_else(short)?) {
        match attribute {
            IFLA_ADDRESS if value.len() == 6 => link.mac.copy_from_slice(value),
            IFLA_MTU => link.mtu = number(value).map_err(|_| short())?,
            IFLA_LINK => link.peer = number(value).ok(),
            IFLA_LINK_NETNSID => link.peer_netns = number(value).ok(),
            IFLA_STATS64 => {
                let bytes = value.get(TX_DROPPED..).and_then(|rest| rest.first_chunk());
                link.tx_dropped = bytes.copied().map_or(0, u64::from_ne_bytes);
            }
            IFLA_XDP => {
                let find = |wanted| attributes(value).find(|(kind, _)| *kind == wanted);
                let bytes = find(IFLA_XDP_PROG_ID).and_then(|(_, value)| value.try_into().ok());
                link.xdp_program = bytes.map(u32::from_ne_bytes);
                link.xdp_mode = match find(IFLA_XDP_ATTACHED) {
                    Some((_, [1])) => Some(XdpMode::Native),
                    Some((_, [2])) => Some(XdpMode::Generic),
                    _ => None,
                };
            }
            IFLA_LINKINFO => {
                let kind = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                let text = kind.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
                link.kind = text.unwrap_or_default().trim_end_matches('\0').to_owned();
            }
            _ => {}
        }
    }
    Ok(link)
}

/// Type and value of each attribute; a broken one ends the walk.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known_everywhere() {
        let link = Link::by_name("lo").expect("every network namespace has it");
        assert_eq!((link.ifindex, link.mac, link.peer_netns), (1, [0; 6], None));
        assert_eq!(link.other_end().expect("it is asked"), None);
    }

    #[test]
    fn a_name_that_no_interface_has_leads_to_none() {
        for name in ["", "lo\0", "lo\0lo", "a-name-too-long-", &"lo".repeat(1 << 16)] {
            let error = Link::by_name(name).expect_err("it can't be there");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_not_a_link() {
        let error = Link::by_name("no-such-link").expect_err("it isn't there");
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn broken_answers_are_errors() {
        for length in 0..HEADER + IFINFO {
            assert!(parse(&vec![0; length]).is_err());
        }
    }
}
