//! Filling the memory of a prepared guest, and starting it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use portico_abi::{Handle, PAGE_SIZE, dt};
use portico_manager::links::Purpose;
use portico_manager::watchdog::Watchdog;
use portico_manager::{fdt, loader, table};
use portico_sdk::{entropy, hvc};

use crate::balloon::Balloon;
use crate::guest::{Guest, Instance, State};
use crate::load::{Bytes, Load, Put, Step};
use crate::supervisor::Manager;

impl Manager {
    /// Plans the loading of a prepared guest. Returns whether that begins now.
    pub(super) fn try_load(&mut self, id: usize) -> bool {
        match self.plan(id) {
            Ok(Some(load)) => {
                if let Some(guest) = self.guests.get_mut(id) {
                    guest.state = State::Loading(load);
                }
                self.save();
                true
            }
            Ok(None) => false,
            Err(why) => {
                self.fail(id, &why);
                true
            }
        }
    }

    fn plan(&self, id: usize) -> Result<Option<Load>, String> {
        let Some(guest) = self.guests.get(id) else { return Ok(None) };
        let Some(instance) = guest.instance.as_ref() else { return Ok(None) };
        let description = &guest.description;
        let kernel = self.file(&description.image)?;
        let ramdisk = description.ramdisk.as_deref().map(|name| self.file(name)).transpose()?;
        let bytes = instance.memory_pages * PAGE_SIZE;
        let plan = loader::plan(kernel, ramdisk, dt::RAM_BASE, bytes).map_err(|error| error.to_string())?;
        let tree = self.tree(guest, instance, plan.ramdisk, bytes);
        if tree.len() as u64 > loader::DTB_BYTES {
            return Err(String::from("its device tree is too large: give it fewer channels or a shorter cmdline"));
        }
        let mut puts = Vec::new();
        for segment in &plan.segments {
            let end = segment.offset + segment.data.len() as u64;
            puts.push(Put { offset: segment.offset, bytes: Bytes::Bundle(segment.data) });
            puts.push(Put { offset: end, bytes: Bytes::Zero(segment.zero_bytes) });
        }
        puts.push(Put { offset: plan.dtb - dt::RAM_BASE, bytes: Bytes::Own(tree) });
        puts.retain(|put| !put.bytes.is_empty());
        Ok(Some(Load::new(puts, plan.entry, plan.dtb)))
    }

    /// A file of the bundle.
    pub fn file(&self, name: &str) -> Result<&'static [u8], String> {
        match self.bundle.find(name) {
            Ok(Some(entry)) => Ok(entry.data),
            Ok(None) => Err(format!("the bundle has no file {name}")),
            Err(error) => Err(format!("the bundle is damaged: {error}")),
        }
    }

    fn tree(&self, guest: &Guest, instance: &Instance, ramdisk: Option<(u64, u64)>, bytes: u64) -> Vec<u8> {
        let name_of =
            |index: u16| self.guests.iter().find(|guest| guest.index == Some(index)).map_or("", |guest| guest.name());
        let mpidrs: Vec<u64> = (0..u64::from(guest.description.vcpus)).map(fdt::mpidr).collect();
        let channels = guest.index.map(|index| {
            let plain = self.channels.of(index).filter(|(_, _, channel)| channel.link.purpose == Purpose::Channel);
            let nodes = plain.map(|(number, side, channel)| {
                let [a, b] = channel.link.sides;
                fdt::ChannelNode {
                    name: &channel.link.name,
                    peer: name_of(if side == 0 { b } else { a }),
                    cookie: crate::channels::cookie(number),
                    link: fdt::Link {
                        ipa: self.channels.ipa_in(index, number),
                        size: channel.link.pages * PAGE_SIZE,
                        port: channel.ports.get(side).map_or(0, |port| port.raw()),
                        side: side as u32,
                    },
                }
            });
            nodes.collect()
        });
        let mut devices = instance.nodes.clone();
        if let Some(index) = guest.index {
            devices.extend(self.channels.device_nodes(&self.machine, index, name_of));
        }
        let console = guest.console.as_ref().map(|_| fdt::Link {
            ipa: dt::WINDOWS,
            size: portico_abi::channel::console::WINDOW_BYTES as u64,
            port: instance.console_port.raw(),
            side: 1,
        });
        fdt::build(&fdt::Description {
            name: guest.name(),
            cmdline: &guest.description.cmdline,
            memory: (dt::RAM_BASE, bytes),
            mpidrs: &mpidrs,
            ramdisk,
            rng_seed: entropy::seed(),
            console,
            channels: channels.unwrap_or_default(),
            devices,
        })
    }

    pub(super) fn step_load(&mut self, id: usize, now: u64) {
        let Some(guest) = self.guests.get_mut(id) else { return };
        let (State::Loading(load), Some(instance)) = (&mut guest.state, &mut guest.instance) else { return };
        match load.step(&instance.ram, instance.domain) {
            Ok(Step::More) => {}
            Ok(Step::NeedsBudget(pages)) => {
                if let Err(status) = self.machine.raise_budget(instance.domain, pages) {
                    self.fail(id, &format!("its page tables: {}", status.describe()));
                }
            }
            Ok(Step::Done) => {
                let (entry, dtb) = (load.entry, load.dtb);
                let first = instance.vcpus.first().copied().unwrap_or(Handle::NONE);
                instance.started_ns = now;
                instance.watchdog = Watchdog::new(0, now);
                if let (Some(kept), Some(control), true) = (guest.kept, &guest.control, guest.description.is_elastic())
                {
                    let ram = core::mem::take(&mut instance.ram);
                    let balloon = Balloon::new(kept, ram, guest.description.memory_min_pages);
                    balloon.show(control);
                    instance.balloon = Some(balloon);
                }
                let (begins, whole) = (instance.memory_pages, guest.description.memory_pages);
                match hvc::vcpu_start(first, entry, dtb) {
                    Ok(()) => {
                        guest.state = State::Running;
                        let name = String::from(guest.name());
                        self.save();
                        if begins < whole {
                            let [begins, whole] = [begins, whole].map(table::pages);
                            self.event(&format!(
                                "guest \"{name}\": begins with {begins} of {whole}, as no more is free"
                            ));
                        }
                    }
                    Err(status) => self.fail(id, &format!("its first vCPU: {}", status.describe())),
                }
            }
            Err(status) => {
                self.fail(id, &format!("its memory: {}", status.describe()));
            }
        }
    }
}
