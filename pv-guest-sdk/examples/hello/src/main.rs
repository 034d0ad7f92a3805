//! The smallest guest: says hello, counts a few seconds, and ends.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::time::Duration;
use portico_sdk::{dtb, println, time, vcpu};

portico_sdk::entry!(hello);

fn hello() -> u64 {
    println!("Hello from {:?}: {} vCPU(s), arguments {:?}", dtb::name(), vcpu::count(), dtb::bootargs());
    for second in 1..=3 {
        time::sleep(Duration::from_secs(1));
        println!("{second} s");
    }
    println!("Good-bye.");
    0
}

#[cfg(test)]
mod tests {
    use portico_sdk::fake::Machine;

    #[test]
    fn says_hello_and_takes_three_seconds() {
        let machine = Machine::start();
        let exit = machine.run(super::hello);
        assert_eq!(exit.code, 0);
        assert!(machine.output().starts_with("Hello from"));
        assert!(machine.output().ends_with("3 s\nGood-bye.\n"));
        assert!(machine.elapsed().as_secs() == 3);
    }
}
