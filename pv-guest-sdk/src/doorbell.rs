//! A notification that is owed, and made in the same trap as the next wait.
//!
//! Who gives work away and then waits for the answer would make two calls, and between them the other side may already
//! have been made ready beside it. In one call the hypervisor can go over to the other side at once.

use crate::hvc;
use crate::port::{self, Port};
use portico_abi::{Handle, Status};

/// At most one owed notification. To be rung, or waited with, before its owner does anything long.
#[derive(Debug, Default)]
pub struct Doorbell {
    owed: Option<Handle>,
}

impl Doorbell {
    /// Nothing is owed.
    pub const fn new() -> Self {
        Self { owed: None }
    }

    /// Owes the other end of `port` a notification. One that is owed to somebody else is made now.
    #[inline]
    pub fn owe(&mut self, port: &Port) {
        if let Some(before) = self.owed.replace(port.handle())
            && before != port.handle()
        {
            let _ = hvc::port_notify(before);
        }
    }

    /// Whether a notification is owed.
    #[inline]
    pub fn is_owing(&self) -> bool {
        self.owed.is_some()
    }

    /// Makes what is owed now. A peer that is gone shows elsewhere.
    #[inline]
    pub fn ring(&mut self) {
        if let Some(port) = self.owed.take() {
            let _ = hvc::port_notify(port);
        }
    }

    /// Makes what is owed, and blocks as [`port::wait`] does.
    ///
    /// # Errors
    /// `TimedOut` at `deadline` (a value of CNTVCT_EL0).
    #[inline]
    pub fn wait(&mut self, deadline: u64) -> Result<(), Status> {
        port::wait_with(self, deadline)
    }

    /// Makes what is owed, and blocks as [`port::wait_until`] does.
    ///
    /// # Errors
    /// `TimedOut` at `deadline` (a value of CNTVCT_EL0).
    #[inline]
    pub fn wait_until(&mut self, deadline: u64, condition: impl FnMut() -> bool) -> Result<(), Status> {
        port::wait_until_with(self, deadline, condition)
    }

    /// Makes what is owed and blocks, in one call.
    #[inline]
    pub(crate) fn block(&mut self, deadline: u64) -> Result<(), Status> {
        match self.owed.take().map(|port| hvc::port_notify_wait(port, deadline)) {
            Some(Ok(())) => Ok(()),
            Some(Err(Status::TimedOut)) => Err(Status::TimedOut),
            // It did not block, since the peer is gone.
            Some(Err(_)) | None => hvc::vcpu_block(deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Doorbell;
    use crate::fake::Machine;
    use crate::port::{self, Port};
    use crate::{hvc, time};
    use portico_abi::Status;

    #[test]
    fn what_is_owed_is_made_once_and_at_the_latest_with_the_wait() {
        let _machine = Machine::builder().start();
        let ports: Vec<_> = (0..2)
            .map(|_| {
                let (here, there) = port::pair().unwrap();
                (Port::bind(here).unwrap(), Port::bind(there).unwrap())
            })
            .collect();
        let [(a, far_a), (b, far_b)] = ports[..] else { panic!() };
        let mut bell = Doorbell::new();
        bell.ring();
        bell.owe(&a);
        bell.owe(&a);
        assert!(bell.is_owing() && !far_a.is_pending());
        bell.owe(&b);
        assert!(far_a.take() && !far_b.is_pending());
        assert_eq!(bell.wait_until(time::now(), || false), Err(Status::TimedOut));
        assert!(far_b.take() && !far_a.is_pending() && !bell.is_owing());
        // Without a wait, since there is nothing to wait for.
        bell.owe(&a);
        assert_eq!(bell.wait_until(0, || true), Ok(()));
        assert!(far_a.take() && !bell.is_owing());
        // Nobody is there any more: it waits all the same.
        bell.owe(&a);
        hvc::handle_close(far_a.handle()).unwrap();
        assert_eq!(bell.wait_until(time::now(), || false), Err(Status::TimedOut));
    }
}
