//! Tells when this host's interfaces or addresses change.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::task::JoinHandle;

use super::error::Error;
use super::interface;

/// What changed on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostChange {
    /// An interface came, or is another than it was; no XDP program is on it.
    Unfiltered(String),
    /// An address came or went.
    Addresses,
}

/// Listens for changes in the network namespace that it was made in.
pub struct HostChanges {
    messages: Messages,
    connection: JoinHandle<()>,
}

type Messages = Pin<Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send>>;

impl HostChanges {
    /// Begins to listen, on a tokio runtime.
    pub fn listen() -> Result<Self, Error> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        let (connection, _, messages) = new_multicast_connection(&groups)
            .map_err(|error| Error::io("cannot listen for changes of the interfaces", &error))?;
        Ok(Self {
            messages: Box::pin(messages.map(|(message, _)| message)),
            connection: tokio::spawn(connection),
        })
    }

    /// Waits for the next change; `None` where the kernel tells no more.
    pub async fn next(&mut self) -> Option<HostChange> {
        loop {
            let message = self.messages.next().await?;
            let NetlinkPayload::InnerMessage(message) = message.payload else {
                continue;
            };
            match message {
                RouteNetlinkMessage::NewLink(link) => {
                    let interface = interface::interface(&link);
                    if interface.xdp.is_none() {
                        return Some(HostChange::Unfiltered(interface.name));
                    }
                }
                RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => {
                    return Some(HostChange::Addresses);
                }
                _ => {}
            }
        }
    }
}

impl Drop for HostChanges {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
