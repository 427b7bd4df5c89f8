//! What may be asked.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::model::{Backend, Protocol};

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How it is: [`super::answer::Status`].
    Status,
    /// A list of [`super::answer::Service`].
    Services,
    /// A list of [`super::answer::Backend`].
    Backends {
        /// Those of one service alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
    },
    /// What was counted: [`super::answer::Stats`].
    Stats,
    /// What is remembered of flows: a list of [`super::answer::Flows`].
    Flows,
    /// No new flows for a backend: [`super::answer::Done`].
    Drain {
        /// The service.
        service: String,
        /// The backend.
        backend: IpAddr,
    },
    /// New flows again: [`super::answer::Done`].
    Undrain {
        /// The service.
        service: String,
        /// The backend.
        backend: IpAddr,
    },
    /// A backend more: [`super::answer::Done`].
    Add {
        /// The service.
        service: String,
        /// The backend, written as in the file.
        backend: Backend,
    },
    /// A backend less, and its flows: [`super::answer::Done`].
    Remove {
        /// The service.
        service: String,
        /// The backend.
        backend: IpAddr,
    },
    /// Where a flow goes: [`super::answer::Explained`].
    Explain {
        /// The client.
        client: SocketAddr,
        /// The service's address and port.
        service: SocketAddr,
        /// The protocol.
        protocol: Protocol,
        /// The connection id of its packets, if it is of QUIC: hexadecimal digits of up to 20 octets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        quic_connection_id: Option<String>,
        /// The server id in its packets' option of TCP, if they have one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server_id: Option<u32>,
    },
    /// What becomes of frames: a list of [`super::answer::Simulated`].
    Simulate {
        /// Each in hexadecimal digits.
        frames: Vec<String>,
    },
    /// Frames are sampled from now on: [`super::answer::Done`]. It ends by itself when nobody has asked for
    /// samples for ten seconds.
    Sample {
        /// One frame of so many.
        every: u32,
        /// Bytes that are kept of a frame.
        snaplen: u32,
    },
    /// Frames that were sampled since it was last asked: [`super::answer::Samples`].
    Samples,
    /// No frames are sampled any more: [`super::answer::Done`].
    Unsample,
    /// The file is read anew, and replaces what operators changed: [`super::answer::Done`].
    Reload,
}

impl Request {
    /// Whether it changes what is balanced.
    #[must_use]
    pub const fn is_change(&self) -> bool {
        matches!(
            self,
            Self::Drain { .. } | Self::Undrain { .. } | Self::Add { .. } | Self::Remove { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_the_documentation_says() {
        let read = |text: &str| serde_json::from_str::<Request>(text);
        let drain = read(r#"{"command":"drain","service":"web","backend":"198.18.0.11"}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&drain).unwrap(),
            r#"{"command":"drain","service":"web","backend":"198.18.0.11"}"#
        );
        let add =
            r#"{"command":"add","service":"web","backend":{"address":"198.18.0.9","weight":2}}"#;
        assert!(matches!(read(add), Ok(Request::Add { backend: Backend { weight: 2, .. }, .. })));
        assert_eq!(read(r#"{"command":"backends"}"#).unwrap(), Request::Backends { service: None });
        assert_eq!(read(r#"{"command":"status"}"#).unwrap(), Request::Status);
    }

    #[test]
    fn what_isnt_understood_is_refused() {
        for text in [
            r#"{"command":"stop"}"#,
            r#"{"command":"drain","service":"web"}"#,
            r#"{"command":"drain","service":"web","backend":"198.18.0.11","now":true}"#,
            r#"{"command":"add","service":"web","backend":{"address":"198.18.0.9","color":"red"}}"#,
            "null",
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }
}
