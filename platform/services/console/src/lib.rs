//! What the console service decides, apart from the UART: one terminal for the manager and all guests.
//!
//! Everything that must outlive an instance of the service is in windows that belong to the manager: the *desk* ([`desk`]), which holds
//! what waits for the terminal, the kept lines and who has the keyboard; a console window and a history for each guest; and
//! the *box*, by which manager and service talk ([`message`]). What changes together is changed by one commit of the desk's
//! journal, so that an instance that dies at any instruction leaves nothing half done, and the next one goes on with the next byte.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(any(test, feature = "fuzz")), forbid(unsafe_code))]

extern crate alloc;

pub mod desk;
pub mod edit;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod history;
mod inbox;
pub mod layout;
pub mod message;
pub mod mux;
mod source;
pub mod text;
