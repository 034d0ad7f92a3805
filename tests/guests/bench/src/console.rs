//! What a line costs on its way to the machine's UART: guest, EL2, console service.

use crate::mark;
use crate::sample::Figure;
use alloc::vec::Vec;
use core::time::Duration;
use portico_sdk::{Status, console, time};

/// Bytes of a line by itself, with its end.
const BYTES: usize = 80;
/// Lines that are measured, and before them some that are not.
const COUNT: u64 = 200;
const WARM_UP: u64 = 16;
/// Time in which a line has certainly left, after which everything sleeps: virtual time passes at once then.
const BETWEEN: Duration = Duration::from_millis(20);

/// Bytes of a line of many, with its end, and how many they are, as the peers' figures are measured: more than the ring holds.
const BYTES_OF_MANY: usize = 64;
const MANY: u64 = 1000;

/// Lines by themselves, and many in a row.
///
/// # Errors
/// `TimedOut` if lines were dropped, since the service did not take them in time.
pub fn measure() -> Result<Vec<Figure>, Status> {
    time::sleep(Duration::from_millis(100));
    one_by_one();
    in_a_row();
    if console::dropped() == 0 { Ok(Vec::new()) } else { Err(Status::TimedOut) }
}

/// A line of so many `=`.
fn line<const BYTES: usize>() -> [u8; BYTES] {
    let mut line = [b'='; BYTES];
    if let Some(last) = line.last_mut() {
        *last = b'\n';
    }
    line
}

/// Writes one line after the other. Each begins when the one before has left and all is quiet, as with somebody who writes now and then: nothing is
/// shared between lines. The guest's own sleep is part of the figure.
fn one_by_one() {
    let line = line::<BYTES>();
    for number in 0..WARM_UP + COUNT {
        if number == WARM_UP {
            mark::begin();
        }
        console::write(&line);
        time::sleep(BETWEEN);
    }
    mark::end("console_line_alone", COUNT);
}

/// Writes all lines as quickly as they are taken, and waits until the last has left.
fn in_a_row() {
    let line = line::<BYTES_OF_MANY>();
    mark::begin();
    (0..MANY).for_each(|_| console::write(&line));
    time::sleep(BETWEEN);
    mark::end("console_line", MANY);
}
