//! Calls about the ABI and about the caller itself.

use super::{call, raw, unit, value};
use portico_abi::{Call, Status};

/// Version (major << 16 | minor), features and management version. See [`portico_abi::call::features`].
///
/// # Errors
/// `NotSupported` where there is no Portico.
pub fn abi_features(page: u64) -> Result<(u64, u64, u64), Status> {
    call(Call::AbiFeatures, [page, 0, 0, 0, 0, 0]).map(|[a, b, c]| (a, b, c))
}

/// A fact about the caller; `key` is one of [`portico_abi::call::info`].
///
/// # Errors
/// `NotFound` for an unknown key, or one that does not apply.
pub fn self_info(key: u64, index: u64) -> Result<u64, Status> {
    value(Call::SelfInfo, [key, index, 0, 0, 0, 0])
}

/// Writes up to 40 bytes to the hypervisor's log. Longer input is cut.
///
/// # Errors
/// `RateLimited` if the caller writes too fast; `Invalid` for no bytes.
pub fn early_write(bytes: &[u8]) -> Result<(), Status> {
    let bytes = bytes.get(..40).unwrap_or(bytes);
    let mut words = [0_u64; 5];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut raw = [0_u8; 8];
        for (to, from) in raw.iter_mut().zip(chunk) {
            *to = *from;
        }
        *word = u64::from_le_bytes(raw);
    }
    let [w0, w1, w2, w3, w4] = words;
    unit(Call::EarlyWrite, [bytes.len() as u64, w0, w1, w2, w3, w4])
}

/// Ends the calling domain; `kind` is one of [`portico_abi::call::exit`].
pub fn self_exit(kind: u64, code: u64) -> ! {
    let _ = raw(u64::from(Call::SelfExit.function_id()), [kind, code, 0, 0, 0, 0]);
    crate::exit::halted()
}
