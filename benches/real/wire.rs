//! What the kernel saw go over loopback to and from one port, and when: each packet with content, stamped as it was put
//! on the device, which is within the system call that writes it. Decides nothing. Needs the right to open a packet
//! socket (root, or CAP_NET_RAW).

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType,
    recvmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal};
use nix::time::{ClockId, clock_gettime};

/// Of a packet, the kernel says that it leaves (`PACKET_OUTGOING`): on loopback each is seen coming in as well.
const OUTGOING: u8 = 4;
/// The length of an Ethernet header.
const ETHERNET: usize = 14;

/// A packet with content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When it was put on the device, in nanoseconds since the Unix epoch, by this machine's clock.
    pub at: i64,
    /// It goes to the server; else it comes from it.
    pub to_server: bool,
}

/// A listener on the device. Stopped with this value.
pub struct Wire {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    packets: Arc<Mutex<Vec<Packet>>>,
}

impl Wire {
    /// Listen to what goes to and from this port.
    ///
    /// # Errors
    /// When this process may not.
    pub fn listen(port: u16) -> nix::Result<Self> {
        let device = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )?;
        setsockopt(&device, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&device, sockopt::ReceiveTimeout, &TimeVal::new(0, 100_000))?;
        let (is_over, packets) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (over, seen) = (Arc::clone(&is_over), Arc::clone(&packets));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if let Some(packet) = receive(&device, port) {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(packet);
                }
            }
        });
        Ok(Self { is_over, thread: Some(thread), packets })
    }

    /// What was seen so far, in its order.
    pub fn packets(&self) -> Vec<Packet> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The next packet, if it is one that counts; none soon, if there is none.
fn receive(device: &OwnedFd, port: u16) -> Option<Packet> {
    let mut bytes = [0_u8; 128];
    let mut control = cmsg_space!(TimeSpec);
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let received =
        recvmsg::<LinkAddr>(device.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
    let received = received.ok()?;
    let from = received.address?;
    if from.pkttype() != OUTGOING {
        return None;
    }
    let at = received.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(at) => Some(nanos(at)),
        _ => None,
    })?;
    let count = received.bytes;
    let to_server = with_content(bytes.get(..count)?, port)?;
    Some(Packet { at, to_server })
}

/// Whether a TCP packet over IPv4 with content goes to this port; none: it is another, or has none.
fn with_content(packet: &[u8], port: u16) -> Option<bool> {
    let ip = packet.get(ETHERNET..)?;
    if packet.get(12..14)? != [8, 0] || *ip.get(9)? != 6 {
        return None;
    }
    let pair =
        |bytes: &[u8], at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let header = usize::from(ip[0] & 15) * 4;
    let tcp = ip.get(header..)?;
    let headers = header + usize::from(*tcp.get(12)? >> 4) * 4;
    if usize::from(pair(ip, 2)?) <= headers {
        return None;
    }
    let (from, to) = (pair(tcp, 0)?, pair(tcp, 2)?);
    if to == port { Some(true) } else { (from == port).then_some(false) }
}

/// The wall clock minus the clock that nodes use, in nanoseconds, as near as two looks at one and one at the other tell.
pub fn wall_minus_boot() -> i64 {
    let now = |clock| clock_gettime(clock).map_or(0, nanos);
    let look = |_| {
        let before = now(ClockId::CLOCK_REALTIME);
        let boot = now(ClockId::CLOCK_BOOTTIME);
        let after = now(ClockId::CLOCK_REALTIME);
        (after - before, before + (after - before) / 2 - boot)
    };
    (0..1_000).map(look).min().map_or(0, |(_, difference)| difference)
}

fn nanos(at: TimeSpec) -> i64 {
    i64::try_from(Duration::from(at).as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(from: u16, to: u16, content: u8) -> Vec<u8> {
        let mut packet = vec![0; ETHERNET + 40 + usize::from(content)];
        packet[12] = 8;
        packet[ETHERNET] = 0x45;
        packet[ETHERNET + 3] = 40 + content;
        packet[ETHERNET + 9] = 6;
        packet[ETHERNET + 20..][..2].copy_from_slice(&from.to_be_bytes());
        packet[ETHERNET + 22..][..2].copy_from_slice(&to.to_be_bytes());
        packet[ETHERNET + 32] = 5 << 4;
        packet
    }

    #[test]
    fn only_content_to_and_from_the_port_counts() {
        assert_eq!(with_content(&packet(40_000, 5_432, 9), 5_432), Some(true));
        assert_eq!(with_content(&packet(5_432, 40_000, 9), 5_432), Some(false));
        assert_eq!(with_content(&packet(40_000, 5_432, 0), 5_432), None);
        assert_eq!(with_content(&packet(40_000, 5_433, 9), 5_432), None);
        let mut other = packet(40_000, 5_432, 9);
        other[ETHERNET + 9] = 17;
        assert_eq!(with_content(&other, 5_432), None);
        assert_eq!(with_content(&other[..20], 5_432), None);
    }
}
