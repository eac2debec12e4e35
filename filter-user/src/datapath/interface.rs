//! What the kernel says about a network interface, by netlink: /sys shows
//! another namespace's interfaces after `nsenter --net`.

use std::os::unix::fs::MetadataExt as _;

use futures_util::TryStreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};

use super::Mode;
use super::error::Error;

/// A network interface of the caller's namespace.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    /// Its index.
    pub(super) index: u32,
    /// Its name.
    pub(super) name: String,
    /// Bytes of the largest packet, without the link layer's header.
    pub(super) mtu: u32,
    /// `veth`, `bridge`, `bond`, …; `None` for most hardware.
    pub(super) kind: Option<String>,
    /// Whether it is a loopback.
    pub(super) loopback: bool,
    /// The XDP program on it.
    pub(super) xdp: Option<Attached>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attached {
    /// Its id.
    pub(super) program: u32,
    /// How it is attached; `None` for hardware off-load.
    pub(super) mode: Option<Mode>,
}

/// The interface called `name`.
pub(super) fn by_name(name: &str) -> Result<Interface, Error> {
    let all = all()?;
    all.iter().find(|interface| interface.name == name).cloned().ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|interface| interface.name.as_str()).collect();
        Error::Failed(format!(
            "there is no interface {name:?} in this network namespace; nothing was changed. It has: {}.",
            names.join(", ")
        ))
    })
}

/// All interfaces of the caller's network namespace.
pub(super) fn all() -> Result<Vec<Interface>, Error> {
    let messages = ask("the network interfaces", async |handle| {
        handle.link().get().execute().try_collect::<Vec<_>>().await
    })?;
    Ok(messages.iter().map(interface).collect())
}

/// Asks netlink for something, in the caller's network namespace.
pub(super) fn ask<T: Send + 'static>(
    what: &str,
    question: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error> + Send + 'static,
) -> Result<T, Error> {
    // A thread of its own: the caller may be on a tokio thread already, where
    // a runtime can't be blocked on. It inherits the namespace.
    let answer = std::thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|error| error.to_string())?
            .block_on(async {
                let (connection, handle, _) =
                    rtnetlink::new_connection().map_err(|error| error.to_string())?;
                let connection = tokio::spawn(connection);
                let answer = question(handle).await;
                connection.abort();
                answer.map_err(|error| error.to_string())
            })
    });
    answer
        .join()
        .unwrap_or_else(|_| Err("the netlink thread panicked".to_owned()))
        .map_err(|error| Error::Failed(format!("cannot list {what}: {error}")))
}

pub(super) fn interface(message: &LinkMessage) -> Interface {
    let mut interface = Interface {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        kind: None,
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        xdp: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => {
                interface.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            LinkAttribute::Xdp(attributes) => interface.xdp = attached(attributes),
            _ => {}
        }
    }
    interface
}

fn attached(attributes: &[LinkXdp]) -> Option<Attached> {
    let mode = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some(Mode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(Mode::Generic),
        _ => None,
    });
    attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::ProgId(program) if *program != 0 => Some(Attached {
            program: *program,
            mode,
        }),
        _ => None,
    })
}

/// The caller's network namespace: interface indices are its own.
pub(super) fn namespace() -> Result<u64, Error> {
    std::fs::metadata("/proc/thread-self/ns/net")
        .map(|file| file.ino())
        .map_err(|error| {
            Error::io(
                "cannot tell the network namespace (is /proc mounted?)",
                &error,
            )
        })
}
