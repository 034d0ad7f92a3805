//! Commands, as they are typed.

use super::{COMMANDS, Command, Create, Sched, closest, distance, help, names, parse};
use alloc::string::ToString;
use proptest::prelude::*;

fn command(line: &str) -> Command {
    parse(line).expect(line).expect(line)
}

fn error(line: &str) -> alloc::string::String {
    parse(line).expect_err(line)
}

#[test]
fn every_command_has_help_and_parses() {
    for &(name, arguments, ..) in COMMANDS {
        assert!(help(Some(name)).expect(name).starts_with(&alloc::format!("usage: {name}")));
        let line = match arguments {
            arguments if arguments.starts_with("NAME") => alloc::format!("{name} web"),
            arguments if arguments.starts_with("add") => alloc::format!("{name} remove web spare"),
            _ => name.to_string(),
        };
        assert!(parse(&line).expect(&line).is_some());
        assert_eq!(command(&alloc::format!("{name} --help")), Command::Help(Some(name.to_string())));
    }
    assert_eq!(help(None).expect("list").lines().count(), COMMANDS.len() + 1);
    assert_eq!(parse("   "), Ok(None));
}

#[test]
fn arguments_are_read() {
    assert_eq!(
        command("create web image=hello memory=64M vcpus=2 cmdline=\"a b=c\""),
        Command::Create(Create {
            name: Some("web".into()),
            image: Some("hello".into()),
            memory_bytes: Some(64 << 20),
            vcpus: Some(2),
            cmdline: Some("a b=c".into()),
        })
    );
    assert_eq!(
        command("sched web weight=512 cap=25% cpus=0,2-3 reserve=250/1000"),
        Command::Sched(Sched {
            guest: "web".into(),
            weight: Some(512),
            cap_permille: Some(250),
            affinity: Some(0b1101),
            reservation: Some((250, 1000)),
        })
    );
    assert_eq!(command("log 5"), Command::Log { guest: None, lines: 5 });
    assert_eq!(command("log web 5"), Command::Log { guest: Some("web".into()), lines: 5 });
    assert_eq!(command("shutdown reboot"), Command::Shutdown { reboot: true, at_once: false });
    assert_eq!(command("shutdown now"), Command::Shutdown { reboot: false, at_once: true });
    assert_eq!(command("stop web"), Command::Stop { guest: "web".into(), seconds: 60 });
    assert_eq!(command("suspend web 5"), Command::Suspend { guest: "web".into(), seconds: 5 });
    assert_eq!(command("wake web"), Command::Wake { guest: "web".into(), seconds: 60 });
    assert_eq!(command("restart web 5"), Command::Restart { guest: "web".into(), seconds: 5 });
    assert_eq!(command("memory web 64M"), Command::Memory { guest: "web".into(), bytes: Some(64 << 20) });
    assert_eq!(command("balloon web"), Command::Memory { guest: "web".into(), bytes: None });
    assert_eq!(command("clock"), Command::Clock(None));
    assert_eq!(command("clock 1970-01-01T00:00:01"), Command::Clock(Some(1_000_000_000)));
}

#[test]
fn errors_say_what_to_write() {
    assert!(error("lsit").contains("did you mean `list`"));
    assert!(error("frobnicate").contains("`help`"));
    assert!(error("destroy").contains("which guest"));
    assert!(error("create x memory=5").contains("as in 64M"));
    assert!(error("create x imge=y").contains("did you mean `image=`"));
    assert!(error("create image=y").contains("name comes first"));
    assert!(error("sched web weight=0").contains("1 to 65535"));
    assert!(error("sched web cpus=3-1").contains("1-3"));
    assert!(error("sched web reserve=2000/1000").contains("1 to 1000"));
    assert!(error("create x cmdline=\"a").contains("quote"));
    assert!(error("list all").contains("takes no arguments"));
    assert!(error("shutdown later").contains("[reboot] [now]"));
    assert!(error("stop").contains("which guest"));
    assert!(error("stop web 0").contains("1 to 3600"));
    assert!(error("memory").contains("which guest"));
    assert!(error("memory web 5").contains("as in 64M"));
    assert!(error("clock noon").contains("2026-11-22T08:00:00"));
}

#[test]
fn distances() {
    assert_eq!(distance("kitten", "sitting"), 3);
    assert_eq!(distance("", "abc"), 3);
    assert_eq!(closest("consol", names()), Some("console"));
    assert_eq!(closest("xyzzy", names()), None);
}

proptest! {
    #[test]
    fn no_line_breaks_it(line in ".{0,80}") {
        let _ = parse(&line);
    }
}
