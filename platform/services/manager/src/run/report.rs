//! What `list`, `top` and `info` show.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use portico_abi::call::info;
use portico_abi::device::control::{Counters, ask};
use portico_abi::record::{VcpuState, VcpuStats};
use portico_manager::links::is_service;
use portico_manager::table::{bytes, cpu_list, duration, pages, percent, table};
use portico_sdk::{dtb, hvc, time};

use crate::guest::Guest;
use crate::supervisor::Manager;

/// The beginning of a `top`.
#[derive(Debug)]
pub struct TopSample {
    /// When it began.
    pub from_ns: u64,
    /// When it ends.
    pub until_ns: u64,
    /// Processor time of each guest.
    guests_ns: Vec<u64>,
    /// Processor time of the manager itself.
    own_ns: u64,
    /// What each guest has moved.
    moved: Vec<Counters>,
    /// Idle time of each processor.
    idle_ns: Vec<u64>,
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(String::from).into()
}

impl Manager {
    /// The table of guests.
    pub fn list_table(&self) -> String {
        let mut rows = Vec::from([row(["NAME", "ID", "STATE", "VCPUS", "MEMORY", "CPU TIME", "RESTARTS", "UPTIME"])]);
        let now = time::now_ns();
        for (id, guest) in self.guests.iter().enumerate() {
            let status = guest.status();
            let is_up = guest.instance.as_ref().filter(|instance| instance.started_ns > 0);
            rows.push(Vec::from([
                String::from(guest.name()),
                format!("{id}"),
                String::from(guest.word()),
                format!("{}", guest.description.vcpus),
                guest.memory_text(),
                status.map_or(String::from("-"), |status| duration(status.cpu_ns)),
                format!("{}", guest.restarts.total()),
                is_up.map_or(String::from("-"), |instance| duration(now.saturating_sub(instance.started_ns))),
            ]));
        }
        table(&rows, &[1, 3, 4, 5, 6, 7])
    }

    /// Takes the figures that a `top` begins with.
    pub fn begin_top(&self, seconds: u64) -> TopSample {
        let from_ns = time::now_ns();
        TopSample {
            from_ns,
            until_ns: from_ns.saturating_add(seconds.saturating_mul(1_000_000_000)),
            guests_ns: self.guests_cpu_ns(),
            moved: self.guests.iter().map(|guest| self.moved_by(guest)).collect(),
            own_ns: portico_sdk::vcpu::current().page().map_or(0, |page| page.run_state().0),
            idle_ns: self.idle_ns(),
        }
    }

    /// The table of a `top` that ends now.
    pub fn top_table(&self, sample: &TopSample, now: u64) -> String {
        let span = now.saturating_sub(sample.from_ns);
        let mut rows = Vec::from([row(["PCPU", "BUSY"])]);
        for (pcpu, (after, before)) in self.idle_ns().iter().zip(&sample.idle_ns).enumerate() {
            let busy = span.saturating_sub(after.saturating_sub(*before));
            rows.push(Vec::from([format!("{pcpu}"), percent(busy, span)]));
        }
        let mut text = table(&rows, &[1]);
        let mut rows = Vec::from([row(["NAME", "STATE", "CPU", "CPU TIME", "IO/S", "IN/S", "OUT/S", "MEMORY"])]);
        for (id, (guest, after)) in self.guests.iter().zip(self.guests_cpu_ns()).enumerate() {
            // A guest that was restarted meanwhile begins at 0 again.
            let before = sample.guests_ns.get(id).copied().filter(|&before| before <= after).unwrap_or(0);
            rows.push(Vec::from([
                String::from(guest.name()),
                String::from(guest.word()),
                percent(after.saturating_sub(before), span),
                duration(after),
            ]));
            let before = sample.moved.get(id).copied().unwrap_or_default();
            let after = self.moved_by(guest);
            // A service that was restarted meanwhile begins at 0 again.
            let rate =
                |after: u64, before: u64| after.saturating_sub(before).saturating_mul(1_000_000_000) / span.max(1);
            let cells = [
                format!("{}", rate(after.requests, before.requests)),
                bytes(rate(after.bytes_in, before.bytes_in)),
                bytes(rate(after.bytes_out, before.bytes_out)),
                guest.memory_text(),
            ];
            rows.last_mut().into_iter().for_each(|row| row.extend(cells.clone()));
        }
        let own = portico_sdk::vcpu::current().page().map_or(0, |page| page.run_state().0);
        let used = percent(own.saturating_sub(sample.own_ns), span);
        let none = || String::from("-");
        rows.push(Vec::from([
            String::from("(manager)"),
            String::from("running"),
            used,
            duration(own),
            none(),
            none(),
            none(),
            none(),
        ]));
        text.push_str(&table(&rows, &[2, 3, 4, 5, 6, 7]));
        text
    }

    /// What the service at the other end of a guest's device counts.
    fn counters(&self, index: usize, service: u16) -> Option<Counters> {
        let place = self.channels.served(service).into_iter().position(|(other, ..)| other == index)?;
        let guest = self.guests.iter().find(|guest| guest.index == Some(service))?;
        Some(guest.control.as_ref()?.counters(place))
    }

    /// What all devices of a guest have moved since their services started.
    fn moved_by(&self, guest: &Guest) -> Counters {
        let mut all = Counters::default();
        let Some(number) = guest.index.filter(|number| !is_service(*number)) else { return all };
        for (index, _, channel) in self.channels.of(number) {
            let [service, _] = channel.link.sides;
            let Some(one) = is_service(service).then(|| self.counters(index, service)).flatten() else { continue };
            all.requests += one.requests;
            all.bytes_in += one.bytes_in;
            all.bytes_out += one.bytes_out;
            all.failed += one.failed;
            all.notified += one.notified;
        }
        all
    }

    /// A line for each device of a guest, or that a service serves.
    fn device_lines(&self, guest: &Guest) -> String {
        let mut text = String::new();
        let Some(number) = guest.index else { return text };
        for (index, side, channel) in self.channels.of(number) {
            let _ = write!(text, "device         {}", channel.link.describe());
            if side == 0 && is_service(number) {
                let user = channel
                    .link
                    .sides
                    .get(1)
                    .and_then(|user| self.guests.iter().find(|guest| guest.index == Some(*user)));
                let _ = write!(text, " of {}", user.map_or("?", |guest| guest.name()));
            }
            let [service, _] = channel.link.sides;
            if let Some(counters) = is_service(service).then(|| self.counters(index, service)).flatten() {
                let _ = write!(
                    text,
                    ": {} requests, {} in, {} out, {} failed, {} notifications",
                    counters.requests,
                    bytes(counters.bytes_in),
                    bytes(counters.bytes_out),
                    counters.failed,
                    counters.notified
                );
            }
            text.push('\n');
        }
        text
    }

    fn guests_cpu_ns(&self) -> Vec<u64> {
        self.guests.iter().map(|guest| guest.status().map_or(0, |status| status.cpu_ns)).collect()
    }

    fn idle_ns(&self) -> Vec<u64> {
        (0..64).map_while(|pcpu| hvc::pcpu_stats(self.machine.system, pcpu).ok()).map(|stats| stats.idle_ns).collect()
    }

    /// Facts of the machine.
    pub fn machine_info(&self) -> String {
        let mut text = String::new();
        if let Ok(stats) = hvc::system_stats(self.machine.system) {
            let _ = writeln!(text, "processors     {} (GICv{})", stats.pcpus, stats.gic);
            let _ = writeln!(text, "hypervisor     {} of its own", pages(stats.image_bytes / 4096));
            if let Ok(offset) = hvc::self_info(info::COUNTER_OFFSET, 0) {
                let first = offset.wrapping_add(portico_sdk::start::boot_ticks());
                let _ = writeln!(text, "booted         {first} ticks after reset");
            }
            let _ = writeln!(text, "refused        {} calls", stats.bad_calls);
        }
        if let Ok((all, promised, used)) = hvc::pool_info(self.machine.system) {
            let _ = writeln!(text, "object pool    {}, {} promised, {} used", pages(all), pages(promised), pages(used));
        }
        let given: u64 = dtb::memory().map(|range| range.len).sum();
        let heap = &self.machine.heap;
        let own = pages(given / 4096 + heap.pages());
        let _ = writeln!(text, "manager        {own}, {heap}; the bundle {}", pages(bundle_bytes().div_ceil(4096)));
        let memory = &self.machine.memory;
        let _ = writeln!(
            text,
            "guest memory   {}, {} free in {} pieces, {} being scrubbed",
            pages(memory.total_pages()),
            pages(memory.free_pages()),
            memory.fragments(),
            pages(memory.dirty_pages())
        );
        let running = self.guests.iter().filter(|guest| guest.instance.is_some()).count();
        let _ = writeln!(text, "guests         {} known, {running} exist", self.guests.len());
        text
    }

    /// Facts of a guest.
    pub fn guest_info(&self, guest: &Guest) -> String {
        let mut text = String::new();
        let description = &guest.description;
        let _ = writeln!(text, "guest          {}, {}", guest.name(), guest.word());
        let _ = writeln!(text, "image          {}", description.image);
        if !description.cmdline.is_empty() {
            let _ = writeln!(text, "cmdline        {}", description.cmdline);
        }
        let _ = match guest.sizes() {
            Some(sizes) => writeln!(
                text,
                "memory         {}, {} asked for, {} at least",
                guest.memory_text(),
                pages(sizes.target),
                pages(sizes.least)
            ),
            None => writeln!(text, "memory         {}", guest.memory_text()),
        };
        let _ = writeln!(text, "on crash       {:?}, restarts {}", description.on_crash, guest.restarts.total());
        if guest.watchdog_ms() > 0 {
            let _ = writeln!(text, "watchdog       {} ms", guest.watchdog_ms());
        }
        let takes = [
            (ask::POWER_OFF, "stop"),
            (ask::REBOOT, "restart"),
            (ask::SUSPEND, "suspend"),
            (ask::RELEASE, "give disks up"),
        ];
        let able: Vec<&str> = takes.iter().filter(|(what, _)| guest.is_able(*what)).map(|(_, word)| *word).collect();
        if !able.is_empty() {
            let _ = writeln!(text, "can be asked   to {}", able.join(" or to "));
        }
        if let Some(end) = &guest.last_end {
            let _ = writeln!(text, "last end       {end}");
        }
        if let Some(status) = guest.status() {
            let _ = writeln!(
                text,
                "hypervisor     {} of {} pages used, {} mapped, {} calls",
                status.used_pages,
                status.budget_pages,
                pages(status.mapped_pages),
                status.calls
            );
        }
        if let Some(control) = guest.control.as_ref().filter(|_| guest.service.is_some()) {
            let _ = writeln!(text, "service        {}", if control.is_ready() { "serves" } else { "begins" });
        }
        text.push_str(&self.device_lines(guest));
        text.push_str(&self.vcpu_table(guest));
        text
    }

    /// Scheduling of a guest's vCPUs.
    pub fn vcpu_table(&self, guest: &Guest) -> String {
        let Some(instance) = &guest.instance else { return String::new() };
        let heading = ["VCPU", "STATE", "PCPU", "TIME", "WAITED", "SHARE", "CAP", "CPUS", "SWITCHES", "MISSED"];
        let mut rows = Vec::from([row(heading)]);
        for (index, &vcpu) in instance.vcpus.iter().enumerate() {
            let Ok(stats) = hvc::vcpu_stats_read(vcpu) else { continue };
            rows.push(vcpu_row(index, &stats));
        }
        table(&rows, &[2, 3, 4, 6, 8, 9])
    }
}

fn bundle_bytes() -> u64 {
    dtb::bundle().map_or(0, |range| range.len)
}

fn vcpu_row(index: usize, stats: &VcpuStats) -> Vec<String> {
    let state = match VcpuState::from_raw(stats.state) {
        Some(VcpuState::Off) => "off",
        Some(VcpuState::Running) => "running",
        Some(VcpuState::Ready) => "ready",
        Some(VcpuState::Blocked) => "blocked",
        Some(VcpuState::Faulted) => "faulted",
        Some(VcpuState::Stopped) => "stopped",
        None => "?",
    };
    let is_reserved = u64::from(stats.class) == portico_abi::call::sched::RESERVATION;
    let share = match is_reserved {
        true => format!("{}/{} us", stats.budget_ns / 1000, stats.period_ns / 1000),
        false => format!("weight {}", stats.weight),
    };
    let cap = if stats.cap == 0 { String::from("-") } else { percent(u64::from(stats.cap), 1000) };
    Vec::from([
        format!("{index}"),
        String::from(state),
        format!("{}", stats.pcpu),
        duration(stats.running_ns),
        duration(stats.ready_ns),
        share,
        cap,
        cpu_list(if stats.affinity == u64::MAX { 0 } else { stats.affinity }),
        format!("{}", stats.switches),
        format!("{}", stats.missed),
    ])
}
