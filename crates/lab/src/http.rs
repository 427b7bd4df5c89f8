//! Pages by HTTP/1.1, one for each connection: as much of it as tells that a whole answer came, and to whom it went.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use crate::{LabError, Pod};

/// A page, by who asks for it.
type Page = fn(IpAddr) -> String;

impl Pod {
    /// Serves a page on a port of all its addresses, until the process ends.
    ///
    /// # Errors
    ///
    /// [`LabError::Listen`] if the port is taken.
    pub fn serve_http(&self, port: u16, page: Page) -> Result<(), LabError> {
        let listen = || {
            for &address in self.addresses() {
                let address = SocketAddr::new(address, port);
                let listener = TcpListener::bind(address).map_err(|source| LabError::Listen {
                    owner: self.name().to_owned(),
                    protocol: "TCP",
                    address,
                    source,
                })?;
                thread::spawn(move || {
                    for stream in listener.incoming().flatten() {
                        // Who hangs up has had enough.
                        let _ = respond(stream, page);
                    }
                });
            }
            Ok(())
        };
        self.run(listen)?
    }

    /// Gets a page, head and body, within a time for each step.
    ///
    /// # Errors
    ///
    /// [`LabError::Probe`] if nobody answers, or not whole.
    pub fn get(&self, from: SocketAddr, timeout: Duration) -> Result<String, LabError> {
        let ask = || -> io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&from, timeout)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: service\r\n\r\n")?;
            let mut response = String::new();
            stream.read_to_string(&mut response)?;
            Ok(response)
        };
        self.run(ask)?.map_err(|source| LabError::Probe { destination: from, source })
    }
}

fn respond(mut stream: TcpStream, page: Page) -> io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 512];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => request.extend(&buffer[..length]),
        }
    }
    let body = page(stream.peer_addr()?.ip());
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close", body.len());
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes())
}
