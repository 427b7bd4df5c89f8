//! What a link is: one question to route netlink (RFC 3549), in this thread's network namespace.

use std::io;

use flowgate_abi::Mac;

use super::syscall;

/// A link of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its interface index.
    pub(crate) ifindex: u32,
    /// Its Ethernet address.
    pub(crate) mac: Mac,
    /// Its kind (`veth`, `netkit`, ...); empty for hardware.
    pub(crate) kind: String,
    /// Its other end lies in another network namespace.
    pub(crate) peer_elsewhere: bool,
    /// Bytes of the largest IP packet that it carries.
    pub(crate) mtu: u32,
    /// The kernel's number for the XDP program that is there.
    pub(crate) xdp_program: Option<u32>,
}

const RTM_GETLINK: u16 = 18;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP_PROG_ID: u16 = 4;
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
}

fn request(name: &str) -> Vec<u8> {
    let attribute = 4 + name.len() + 1;
    let length = HEADER + IFINFO + attribute.next_multiple_of(4);
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(RTM_GETLINK.to_ne_bytes());
    message.extend(1u16.to_ne_bytes()); // NLM_F_REQUEST
    message.resize(HEADER + IFINFO, 0);
    message.extend((attribute as u16).to_ne_bytes());
    message.extend(IFLA_IFNAME.to_ne_bytes());
    message.extend(name.as_bytes());
    message.resize(length, 0);
    message
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
        peer_elsewhere: false,
        mtu: 0,
        xdp_program: None,
    };
    for (attribute, value) in attributes(answer.get(HEADER + IFINFO..).ok_or_else(short)?) {
        match attribute {
            IFLA_ADDRESS if value.len() == 6 => link.mac.copy_from_slice(value),
            IFLA_MTU => {
                link.mtu = value.try_into().map(u32::from_ne_bytes).map_err(|_| short())?;
            }
            IFLA_LINK_NETNSID => link.peer_elsewhere = true,
            IFLA_XDP => {
                let mut id = attributes(value).filter(|(kind, _)| *kind == IFLA_XDP_PROG_ID);
                let bytes = id.next().and_then(|(_, value)| value.try_into().ok());
                link.xdp_program = bytes.map(u32::from_ne_bytes);
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
        assert_eq!((link.ifindex, link.mac, link.peer_elsewhere), (1, [0; 6], false));
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
