//! The filter of what leaves an interface where the kernel has no TCX (before Linux
//! 6.6): a classifier at the `clsact` queueing discipline, by netlink.
//!
//! It stays without a process, like a link. What is attached is asked of the kernel,
//! not remembered; the pinned program says only that it is ours.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use rtnetlink::{Error as NetlinkError, Handle};

use super::error::Error;
use super::interface;

/// The first place, as that of a link is.
const PRIORITY: u16 = 1;
/// Of filters in that place, ours: the letters `nw`.
const HANDLE: u32 = 0x6e77;
/// All protocols (`ETH_P_ALL`), as it goes over the wire.
const ALL: u16 = 3_u16.to_be();

/// Puts the program in force, in the place of ours that is, if one is: by one message,
/// so that no packet passes between them.
pub(super) fn put(ifindex: u32, program: BorrowedFd<'_>) -> Result<(), Error> {
    let fd = program.as_raw_fd().cast_unsigned();
    interface::ask("the filters of what goes out", async move |handle| {
        let create = NLM_F_CREATE | NLM_F_EXCL;
        let made = RouteNetlinkMessage::NewQueueDiscipline(discipline(ifindex));
        match send(&handle, made, create).await {
            Err(error) if is(&error, libc::EEXIST) => {}
            other => other?,
        }
        let mut message = filter(ifindex);
        message
            .attributes
            .push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
        let options = [
            TcFilterBpfOption::ProgFd(fd),
            TcFilterBpfOption::ProgName("nodewall".to_owned()),
            TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        ];
        let options = options.map(TcOption::Bpf).to_vec();
        message.attributes.push(TcAttribute::Options(options));
        let new = RouteNetlinkMessage::NewTrafficFilter(message);
        send(&handle, new, NLM_F_CREATE | NLM_F_REPLACE).await
    })
}

/// The id of our program there, if it is.
pub(super) fn program(ifindex: u32) -> Result<Option<u32>, Error> {
    let index = ifindex.cast_signed();
    let filters = interface::ask("the filters of what goes out", async move |handle| {
        let filters = handle.traffic_filter(index).get().egress().execute();
        match filters.try_collect::<Vec<TcMessage>>().await {
            // There is no such discipline.
            Err(error) if is(&error, libc::EINVAL) || is(&error, libc::ENOENT) => Ok(Vec::new()),
            other => other,
        }
    })?;
    let ours = filters
        .iter()
        .filter(|filter| u32::from(filter.header.handle) == HANDLE);
    let options = ours.flat_map(|filter| &filter.attributes);
    let mut options = options.filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    Ok(options.next().and_then(|options| {
        options.iter().find_map(|option| match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
            _ => None,
        })
    }))
}

/// Takes ours off. The discipline stays: others may have filters there.
pub(super) fn remove(ifindex: u32) -> Result<(), Error> {
    interface::ask("the filters of what goes out", async move |handle| {
        let gone = RouteNetlinkMessage::DelTrafficFilter(filter(ifindex));
        match send(&handle, gone, 0).await {
            Err(error)
                if [libc::ENOENT, libc::ENODEV, libc::EINVAL]
                    .iter()
                    .any(|code| is(&error, *code)) =>
            {
                Ok(())
            }
            other => other,
        }
    })
}

/// The place of a discipline that filters both directions.
fn discipline(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle {
        major: u16::MAX,
        minor: 0,
    };
    message
        .attributes
        .push(TcAttribute::Kind("clsact".to_owned()));
    message
}

/// The place of our filter.
fn filter(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::with_index(ifindex.cast_signed());
    message.header.parent = TcHandle {
        major: u16::MAX,
        minor: TcHandle::MIN_EGRESS,
    };
    message.header.handle = HANDLE.into();
    message.header.info = u32::from(PRIORITY) << 16 | u32::from(ALL);
    message
}

async fn send(
    handle: &Handle,
    message: RouteNetlinkMessage,
    flags: u16,
) -> Result<(), NetlinkError> {
    let mut message = NetlinkMessage::from(message);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut handle = handle.clone();
    let mut answers = handle.request(message)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(NetlinkError::NetlinkError(error));
        }
    }
    Ok(())
}

fn is(error: &NetlinkError, code: i32) -> bool {
    matches!(error, NetlinkError::NetlinkError(message) if message.raw_code() == -code)
}
