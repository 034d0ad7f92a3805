//! TCP/IP for an interface: the crate `smoltcp` on [`super::net`]. (Feature `smoltcp`.)
//!
//! [`Phy`] is the device that smoltcp drives. [`Stack`] is what most guests need around it: an address, from the boot arguments
//! `ip=10.0.2.15/24 gw=10.0.2.2` or by DHCP; [`Stack::poll`], a bounded piece of work; and [`Stack::wait`], which sleeps until a frame comes or a timer of
//! smoltcp's is due.
//!
//! Each frame is copied out of the window before smoltcp parses it: a peer that changes it meanwhile changes nothing.

use super::DeviceError;
use super::net::Interface as Net;
use crate::{dtb, time};
use alloc_crate::vec::Vec;
use portico_abi::port::DEADLINE_NEVER;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::dhcpv4;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Address, Ipv4Cidr};

/// Frames that one [`Stack::poll`] takes: a flood does not keep the guest from its own work.
const FRAMES_PER_POLL: u32 = 64;
/// Bytes of an Ethernet header, which smoltcp counts in its MTU.
const ETHERNET_HEADER: usize = 14;

/// The time for smoltcp: since the counter's zero.
pub fn now() -> Instant {
    Instant::from_micros((time::now_ns() / 1000).cast_signed())
}

/// An interface as a device of smoltcp's. What it sends is published by [`Stack::poll`], or by [`Net::publish`] of its interface.
#[derive(Debug)]
pub struct Phy {
    /// The interface.
    pub net: Net,
    receive: Vec<u8>,
    transmit: Vec<u8>,
    /// Something was not sent, since there was no room.
    is_full: bool,
}

impl Phy {
    /// Makes a device of an interface.
    pub fn new(net: Net) -> Phy {
        Phy { net, receive: Vec::new(), transmit: Vec::new(), is_full: false }
    }

    /// Longest frame that is sent.
    fn longest(&self) -> usize {
        usize::from(self.net.mtu()) + ETHERNET_HEADER
    }

    fn has_room(&mut self) -> bool {
        let has_room = self.net.has_room(self.longest()) == Ok(true);
        self.is_full |= !has_room;
        has_room
    }
}

impl Device for Phy {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        // Each frame may need an answer.
        if !self.has_room() {
            return None;
        }
        let longest = self.longest();
        self.receive.resize(longest, 0);
        let bytes = self.net.receive(&mut self.receive).ok()??;
        // A longer one is not for us; smoltcp drops what is cut off.
        let frame = self.receive.get(..bytes.min(longest))?;
        Some((Received { frame }, Sending { net: &mut self.net, buffer: &mut self.transmit }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        self.has_room().then_some(Sending { net: &mut self.net, buffer: &mut self.transmit })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.longest();
        capabilities
    }
}

/// A frame that was received.
#[derive(Debug)]
pub struct Received<'a> {
    frame: &'a [u8],
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.frame)
    }
}

/// Room for a frame.
#[derive(Debug)]
pub struct Sending<'a> {
    net: &'a mut Net,
    buffer: &'a mut Vec<u8>,
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.buffer.clear();
        self.buffer.resize(len, 0);
        let result = f(self.buffer);
        // There was room when the token was given. A back-end that went meanwhile loses the frame, as a cable does.
        let _ = self.net.try_send(self.buffer);
        result
    }
}

/// An interface with an address.
pub struct Stack {
    phy: Phy,
    interface: Interface,
    dhcp: Option<SocketHandle>,
}

impl core::fmt::Debug for Stack {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Stack").field("phy", &self.phy).field("addresses", &self.interface.ip_addrs()).finish()
    }
}

impl Stack {
    /// Opens the interface `name`, with the address of the boot arguments or, without, one that DHCP gives during [`Stack::poll`].
    ///
    /// # Errors
    /// Those of [`Net::open`].
    pub fn open(name: &str, sockets: &mut SocketSet<'_>, deadline: u64) -> Result<Stack, DeviceError> {
        let mut stack = Self::new(Net::open(name, deadline)?);
        match dtb::bootarg("ip").and_then(|text| text.parse().ok()) {
            Some(address) => stack.set_address(address, dtb::bootarg("gw").and_then(|text| text.parse().ok())),
            None => stack.dhcp = Some(sockets.add(dhcpv4::Socket::new())),
        }
        Ok(stack)
    }

    /// Makes a stack without an address.
    pub fn new(net: Net) -> Stack {
        let mac = net.mac();
        let mut phy = Phy::new(net);
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        // Local ports and sequence numbers begin with it. There may be nothing better than the time.
        let [a, b, c, d, e, f] = mac;
        config.random_seed = time::now() ^ u64::from_le_bytes([f, e, d, c, b, a, 0, 0]) << 16;
        let interface = Interface::new(config, &mut phy, now());
        Stack { phy, interface, dhcp: None }
    }

    /// Sets address and gateway.
    pub fn set_address(&mut self, address: Ipv4Cidr, gateway: Option<Ipv4Address>) {
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // It holds at least one.
            let _ = addresses.push(IpCidr::Ipv4(address));
        });
        self.interface.routes_mut().remove_default_ipv4_route();
        if let Some(gateway) = gateway {
            let _ = self.interface.routes_mut().add_default_ipv4_route(gateway);
        }
    }

    /// Its address, if it has one yet.
    pub fn address(&self) -> Option<Ipv4Address> {
        self.interface.ipv4_addr()
    }

    /// The interface below.
    pub fn net(&mut self) -> &mut Net {
        &mut self.phy.net
    }

    /// smoltcp's interface, and its device.
    pub fn parts(&mut self) -> (&mut Interface, &mut Phy) {
        (&mut self.interface, &mut self.phy)
    }

    /// Takes what has come, up to 64 frames, sends what the sockets have, and publishes it. Returns whether a socket has changed.
    pub fn poll(&mut self, sockets: &mut SocketSet<'_>) -> bool {
        let now = now();
        let mut has_changed = false;
        self.phy.is_full = false;
        self.interface.poll_maintenance(now);
        for _ in 0..FRAMES_PER_POLL {
            match self.interface.poll_ingress_single(now, &mut self.phy, sockets) {
                PollIngressSingleResult::None => break,
                PollIngressSingleResult::PacketProcessed => {}
                PollIngressSingleResult::SocketStateChanged => has_changed = true,
            }
        }
        while self.interface.poll_egress(now, &mut self.phy, sockets) == PollResult::SocketStateChanged {
            has_changed = true;
        }
        self.phy.net.publish();
        self.take_lease(sockets);
        has_changed
    }

    /// Takes the address that DHCP gave, or lost.
    fn take_lease(&mut self, sockets: &mut SocketSet<'_>) {
        let Some(handle) = self.dhcp else { return };
        match sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
            None => {}
            Some(dhcpv4::Event::Configured(lease)) => self.set_address(lease.address, lease.router),
            Some(dhcpv4::Event::Deconfigured) => {
                self.interface.update_ip_addrs(|addresses| addresses.clear());
                self.interface.routes_mut().remove_default_ipv4_route();
            }
        }
    }

    /// Sleeps until a frame comes, there is room again for one, smoltcp has something to do, or `deadline` (a value of CNTVCT_EL0) is reached.
    ///
    /// # Errors
    /// The back-end that came back is not what it was.
    pub fn wait(&mut self, sockets: &SocketSet<'_>, deadline: u64) -> Result<(), DeviceError> {
        let due = match self.interface.poll_delay(now(), sockets) {
            Some(delay) if delay.total_micros() == 0 && !self.phy.is_full => return Ok(()),
            Some(delay) => time::deadline(core::time::Duration::from_micros(delay.total_micros().max(1))),
            None => DEADLINE_NEVER,
        };
        let until = due.min(deadline);
        let woken = if self.phy.is_full {
            let longest = self.phy.longest();
            self.phy.net.wait_for_room(longest, deadline)
        } else {
            self.phy.net.wait(until)
        };
        match woken {
            Ok(()) | Err(DeviceError::TimedOut) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Net, Stack};
    use crate::device::frames::{FrameReceiver, FrameSender};
    use crate::device::{Event, Link};
    use crate::fake::Machine;
    use crate::time;
    use core::time::Duration;
    use portico_abi::device::net::{VERSION, shape_of_window};
    use portico_abi::device::{Offer, kind};
    use portico_abi::dt;
    use smoltcp::iface::SocketSet;
    use smoltcp::socket::tcp;
    use std::sync::{Arc, Mutex};

    /// A cable between two interfaces, as the test's back-end.
    struct Cable(Vec<(Link, Option<(FrameReceiver, FrameSender)>)>);

    impl Cable {
        fn step(&mut self) {
            for (link, rings) in &mut self.0 {
                if link.step() == Event::Peer {
                    let (window, shape) = (link.window(), shape_of_window(link.window().len()).unwrap());
                    let receiver = FrameReceiver::start(window, shape.transmit).unwrap();
                    *rings = Some((receiver, FrameSender::start(window, shape.receive).unwrap()));
                    link.welcome();
                }
            }
            let [(one, Some((one_in, one_out))), (two, Some((two_in, two_out)))] = &mut self.0[..] else { return };
            for (from, to) in [(&mut *one_in, &mut *two_out), (&mut *two_in, &mut *one_out)] {
                while let Ok(Some(frame)) = from.look() {
                    to.forward(&frame.head, &frame.span).unwrap();
                    from.take(&frame.span);
                }
            }
            if one_in.release() | one_out.publish() {
                one.tell();
            }
            if two_in.release() | two_out.publish() {
                two.tell();
            }
            let _ = (one_in.arm(), two_in.arm());
        }
    }

    #[test]
    fn a_connection_carries_bytes() {
        let machine = Machine::builder().device(dt::NET, "a", 9).device(dt::NET, "b", 9).start();
        let end = |name: &str, last: u8| {
            let link = machine.back_end(name).unwrap();
            let mut details = [0; 32];
            details[..12].copy_from_slice(&[2, 0, 0, 0, 0, last, 0xdc, 5, 0xee, 5, 0, 0]);
            link.offer(&Offer { kind: kind::NET, version: VERSION, ..Offer::default() }, &details);
            (link, None)
        };
        let cable = Arc::new(Mutex::new(Cable(vec![end("a", 1), end("b", 2)])));
        let outside = cable.clone();
        machine.on_block(move || outside.lock().unwrap().step());
        let soon = || time::deadline(Duration::from_secs(2));
        let mut stacks = ["a", "b"].map(|name| Stack::new(Net::open(name, soon()).unwrap()));
        let mut sockets = [SocketSet::new(vec![]), SocketSet::new(vec![])];
        let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
        let handles = sockets.each_mut().map(|set| set.add(tcp::Socket::new(buffer(), buffer())));
        for (stack, address) in stacks.iter_mut().zip(["10.0.0.1/24", "10.0.0.2/24"]) {
            stack.set_address(address.parse().unwrap(), None);
        }
        assert_eq!(stacks[0].address(), Some("10.0.0.1".parse().unwrap()));
        sockets[0].get_mut::<tcp::Socket<'_>>(handles[0]).listen(80).unwrap();
        let client = sockets[1].get_mut::<tcp::Socket<'_>>(handles[1]);
        let server: smoltcp::wire::Ipv4Address = "10.0.0.1".parse().unwrap();
        client.connect(stacks[1].interface.context(), (server, 80), 50000).unwrap();
        let sent: Vec<u8> = (0..20_000_u32).map(|byte| (byte * 7) as u8).collect();
        let (mut done, mut received) = (0, Vec::new());
        for round in 0..4000 {
            for (stack, sockets) in stacks.iter_mut().zip(&mut sockets) {
                stack.poll(sockets);
            }
            cable.lock().unwrap().step();
            let client = sockets[1].get_mut::<tcp::Socket<'_>>(handles[1]);
            if client.can_send() && done < sent.len() {
                done += client.send_slice(&sent[done..]).unwrap();
            }
            let server = sockets[0].get_mut::<tcp::Socket<'_>>(handles[0]);
            if server.can_recv() {
                server.recv(|bytes| (bytes.len(), received.extend_from_slice(bytes))).unwrap();
            }
            if received.len() == sent.len() {
                break;
            }
            if round % 4 == 3 {
                let wait = time::deadline(Duration::from_millis(20));
                stacks[0].wait(&sockets[0], wait).unwrap();
            }
        }
        assert_eq!(received, sent);
    }
}
