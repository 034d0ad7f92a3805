//! A guest in place of the manager.
#![cfg_attr(target_os = "none", no_std, no_main)]

portico_sdk::entry!(root);

fn root() -> u64 {
    0
}
