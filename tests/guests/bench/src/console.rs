//! What a line costs on its way to the machine's UART: guest, EL2, console service.

use crate::mark;
use crate::sample::Figure;
use alloc::vec::Vec;
use core::time::Duration;
use portico_sdk::{Status, console, time};

/// Bytes of a line, with its end.
const BYTES: usize = 80;
/// Lines that are measured, and before them some that are not.
const COUNT: u64 = 200;
const WARM_UP: u64 = 16;
/// Time in which a line has certainly left, after which everything sleeps: virtual time passes at once then.
const BETWEEN: Duration = Duration::from_millis(20);

/// Writes one line after the other. Each begins when the one before has left and all is quiet, as with somebody who writes now and then: nothing is
/// shared between lines. The guest's own sleep is part of the figure.
///
/// # Errors
/// None.
pub fn measure() -> Result<Vec<Figure>, Status> {
    let mut line = [b'='; BYTES];
    if let Some(last) = line.last_mut() {
        *last = b'\n';
    }
    time::sleep(Duration::from_millis(100));
    for number in 0..WARM_UP + COUNT {
        if number == WARM_UP {
            mark::begin();
        }
        console::write(&line);
        time::sleep(BETWEEN);
    }
    mark::end("console_line", COUNT);
    Ok(Vec::new())
}
