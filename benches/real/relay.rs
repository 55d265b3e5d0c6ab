//! A road of a fixed length: a relay that delivers each direction's bytes a given time after they came. Decides nothing.
//! Each direction of a connection has a thread that reads and one that delivers, asleep by the kernel's own timers: what
//! they are late by is the road's noise, which the benchmarks measure.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;

/// The most that is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// Open a road to a port of loopback, each way so long, until this process ends; its own port.
pub fn open(server: u16, way: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for node in listener.incoming().flatten() {
            // A server that refuses is seen as one that refuses: the connection ends at once.
            let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
            let _ = (node.set_nodelay(true), server.set_nodelay(true));
            carry(node.try_clone().unwrap(), server.try_clone().unwrap(), way);
            carry(server, node, way);
        }
    });
    port
}

fn carry(mut from: TcpStream, to: TcpStream, way: Duration) {
    let (sender, receiver) = channel();
    thread::spawn(move || receive(&mut from, &sender, way));
    thread::spawn(move || deliver(to, &receiver));
}

fn receive(from: &mut TcpStream, parcels: &Sender<(Instant, Vec<u8>)>, way: Duration) {
    let mut bytes = vec![0; CHUNK];
    while let Ok(count) = from.read(&mut bytes) {
        let due = Instant::now() + way;
        if count == 0 || parcels.send((due, bytes[..count].to_vec())).is_err() {
            return;
        }
    }
}

fn deliver(mut to: TcpStream, parcels: &Receiver<(Instant, Vec<u8>)>) {
    // The kernel may add that to each sleep, in nanoseconds; 50,000 unless it is told otherwise.
    let _ = prctl::set_timerslack(1);
    while let Ok((due, bytes)) = parcels.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
