//! The programs of the package, and what their pages say beside what clap knows.

use clap::{Command, CommandFactory};

/// A program and what its pages say.
pub struct Program {
    /// Its command line.
    pub command: Command,
    /// The manual's section: daemons are for administrators.
    pub section: &'static str,
    /// Environment variables, and what they are for.
    pub environment: &'static [(&'static str, &'static str)],
    /// Files, and what they are.
    pub files: &'static [(&'static str, &'static str)],
    /// Examples: each command has one.
    pub examples: &'static [Example],
    /// Other pages, as `sluice(1)`.
    pub see_also: &'static [&'static str],
}

/// A command line and what it does.
pub struct Example {
    /// As it is typed.
    pub line: &'static str,
    /// A sentence.
    pub does: &'static str,
}

impl Example {
    /// Whether it calls the command that these words are, or one below it.
    pub fn uses(&self, words: &[String]) -> bool {
        // Options of a program stand before its commands.
        let is_option = |word: &&str| word.starts_with("--") || word.starts_with('/');
        let mut line = self.line.split(' ').filter(|word| !is_option(word));
        words.iter().all(|word| line.next() == Some(word))
    }
}

const LOG: (&str, &str) = (
    "RUST_LOG",
    "What is logged to standard error: off, error, warn, info (when it is not set), debug or trace, or a \
     list as info,sluice_control=debug",
);
const NOTIFY: (&str, &str) = (
    "NOTIFY_SOCKET, WATCHDOG_USEC",
    "Set by systemd, which is told when it is ready, that it is alive, and when it stops: see \
     sd_notify(3).",
);

/// All programs.
pub fn all() -> [Program; 4] {
    [sluice(), control(), dataplane(), perf()]
}

fn sluice() -> Program {
    Program {
        command: sluice_cli::command(),
        section: "1",
        environment: &[(
            "SLUICE_API",
            "Where the API is, unless --api says so; http://127.0.0.1:9600 when neither does.",
        )],
        files: &[
            (
                "/etc/sluice/dataplane.toml, /etc/sluice/control.toml",
                "Read by doctor, unless it is told otherwise.",
            ),
            (
                "/usr/share/bash-completion/completions/sluice",
                "Completions; also for zsh and fish.",
            ),
        ],
        examples: SLUICE,
        see_also: &["sluice-control(8)", "sluice-dataplane(8)", "sluice-control.toml(5)"],
    }
}

fn control() -> Program {
    Program {
        command: sluice_control::args::Arguments::command(),
        section: "8",
        environment: &[LOG, NOTIFY],
        files: &[
            ("/etc/sluice/control.toml", "The file of the unit sluice-control.service."),
            (
                "/var/lib/sluice/state.db",
                "The desired state and its history; beside it state.db.backup, a copy of each day.",
            ),
            ("/run/sluice/dataplane.sock", "Where it finds the data plane."),
        ],
        examples: &[
            Example {
                line: "sluice-control --check --config /etc/sluice/control.toml",
                does: "Whether a file is good, and what a start with it would change:",
            },
            Example {
                line: "sluice-control --config /etc/sluice/control.toml",
                does: "In the foreground, as the unit does:",
            },
            Example {
                line: "sluice-control --config /etc/sluice/control.toml db check",
                does: "Whether the database is whole, while control runs:",
            },
            Example {
                line: "sluice-control --config /etc/sluice/control.toml db backup /root/state.db",
                does: "A copy of it, as of one moment:",
            },
            Example {
                line: "sluice-control --config /etc/sluice/control.toml db repair",
                does: "Mend it, or take the last backup; control must be stopped:",
            },
        ],
        see_also: &["sluice(1)", "sluice-control.toml(5)", "sluice-dataplane(8)"],
    }
}

fn dataplane() -> Program {
    Program {
        command: sluice_dataplane::args::Args::command(),
        section: "8",
        environment: &[
            LOG,
            NOTIFY,
            (
                "RUNTIME_DIRECTORY",
                "Below it DPDK keeps the files of this process; /var/run when it is not set.",
            ),
        ],
        files: &[
            ("/etc/sluice/dataplane.toml", "The file of the unit sluice-dataplane.service."),
            ("/run/sluice/dataplane.sock", "Where it listens for sluice-control."),
            ("/dev/hugepages", "Its memory, where hugepages are mounted."),
            ("/dev/vfio, /dev/net/tun", "Its NICs, and the kernel's side of its ports."),
        ],
        examples: &[
            Example {
                line: "sluice-dataplane --check --config /etc/sluice/dataplane.toml",
                does: "Whether a file is good:",
            },
            Example {
                line: "sluice-dataplane --config /etc/sluice/dataplane.toml",
                does: "In the foreground, as the unit does:",
            },
        ],
        see_also: &["sluice(1)", "sluice-dataplane.toml(5)", "sluice-control(8)"],
    }
}

fn perf() -> Program {
    Program {
        command: sluice_perf::Args::command(),
        section: "1",
        environment: &[
            (
                "SLUICE_BIN_DIR",
                "Where wire finds sluice-dataplane and sluice-control; its own directory when it is \
                     not set.",
            ),
            ("RUNTIME_DIRECTORY, XDG_RUNTIME_DIR", "Below them DPDK keeps its files."),
        ],
        files: &[(
            "/usr/share/doc/sluice/examples/gen-*.toml",
            "Scenarios for gen: docs/generator.md tells all their fields.",
        )],
        examples: PERF,
        see_also: &["sluice-dataplane(8)"],
    }
}

const PERF: &[Example] = &[
    Example { line: "sluice-perf pipeline", does: "What a packet costs in each stage:" },
    Example {
        line: "sluice-perf count --check perf/results/instructions.json",
        does: "Whether a packet costs more instructions than it did:",
    },
    Example {
        line: "sluice-perf gen --scenario /usr/share/doc/sluice/examples/gen-rfc2544.toml --json",
        does: "The highest rate without loss, as the scenario says:",
    },
    Example { line: "sluice-perf wire", does: "The whole program, beside testpmd:" },
];

const SLUICE: &[Example] = &[
    Example { line: "sluice service list", does: "All services:" },
    Example {
        line: "sluice service show web",
        does: "One of them, with its backends and their health:",
    },
    Example {
        line: "sluice service create api --vip 10.10.0.103 --port 443 --pool lan --scheduler wlc \
               --backend 10.20.0.11:80=50 --backend 10.20.0.12:80 --check-kind tcp",
        does: "A new service with two backends that are checked:",
    },
    Example { line: "sluice service set api --port 8443", does: "Another port for it:" },
    Example { line: "sluice service delete api", does: "No such service any more:" },
    Example { line: "sluice backend list web", does: "The backends of a service:" },
    Example { line: "sluice backend add web 10.20.0.14:80 --weight 50", does: "One more backend:" },
    Example { line: "sluice backend drain web 10.20.0.11:80", does: "No new conns for a backend:" },
    Example { line: "sluice backend up web 10.20.0.11:80", does: "New conns again:" },
    Example {
        line: "sluice backend down web 10.20.0.11:80",
        does: "Out of service: no new conns, no checks:",
    },
    Example {
        line: "sluice backend weight web 10.20.0.11:80 200",
        does: "A larger share of new conns:",
    },
    Example {
        line: "sluice backend max-conns web 10.20.0.11:80 1000",
        does: "At most 1000 conns:",
    },
    Example { line: "sluice backend remove web 10.20.0.14:80", does: "One backend less:" },
    Example { line: "sluice pool list", does: "All pools:" },
    Example { line: "sluice pool show lan", does: "One of them, with the conns of its addresses:" },
    Example { line: "sluice pool create lan --address 10.20.0.200", does: "A new pool:" },
    Example { line: "sluice pool add-address lan 10.20.0.201", does: "One more address:" },
    Example { line: "sluice pool drain lan 10.20.0.200", does: "No new conns from an address:" },
    Example { line: "sluice pool up lan 10.20.0.200", does: "New conns again:" },
    Example { line: "sluice pool remove-address lan 10.20.0.200", does: "One address less:" },
    Example { line: "sluice pool delete lan", does: "No such pool any more:" },
    Example { line: "sluice host show 10.20.0.11", does: "A host's backends, in all services:" },
    Example {
        line: "sluice host drain 10.20.0.11 --deadline 10m",
        does: "No new conns for a host; come back when it has none left:",
    },
    Example { line: "sluice host up 10.20.0.11", does: "New conns for it again:" },
    Example { line: "sluice vip list", does: "All VIPs, and how they fare:" },
    Example { line: "sluice vip show 10.10.0.100", does: "One of them, and why:" },
    Example { line: "sluice node list", does: "The node, and what runs on it:" },
    Example { line: "sluice node show lb1", does: "Its workers and ports:" },
    Example {
        line: "sluice port show --rates 2",
        does: "Packets per second of each port, over 2 s:",
    },
    Example { line: "sluice stats --drops", does: "Which packets were dropped, and why:" },
    Example { line: "sluice stats web --watch 1", does: "The traffic of a service, every second:" },
    Example { line: "sluice events --follow", does: "What happens, as it happens:" },
    Example { line: "sluice status", does: "How both processes are:" },
    Example { line: "sluice neighbours", does: "The next hops that the data plane knows:" },
    Example {
        line: "sluice apply services.toml",
        does: "Make services and pools be as in a file:",
    },
    Example { line: "sluice confirm", does: "Let services go that the state no longer has:" },
    Example { line: "sluice history --limit 20", does: "Who changed what, when, and why:" },
    Example { line: "sluice diff 41", does: "What differs between then and now:" },
    Example { line: "sluice rollback 41 --dry-run", does: "What going back would change:" },
    Example { line: "sluice export --format toml", does: "All of it, to be kept or applied:" },
    Example { line: "sluice doctor", does: "Whether this host is fit:" },
    Example { line: "sluice completions bash", does: "A completion script:" },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_an_example_and_every_example_is_a_command() {
        for program in all() {
            for example in program.examples {
                let parsed = program.command.clone().try_get_matches_from(example.line.split(' '));
                assert!(parsed.is_ok(), "{}: {}", example.line, parsed.unwrap_err());
            }
            let name = program.command.get_name().to_owned();
            assert_examples(&program.command, &[name], program.examples);
        }
    }

    fn assert_examples(command: &Command, words: &[String], examples: &[Example]) {
        let found = examples.iter().any(|example| example.uses(words));
        assert!(found, "no example of {}: add one in packaging/src/programs.rs", words.join(" "));
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            if below.get_name() != "help" {
                let words: Vec<_> =
                    words.iter().cloned().chain([below.get_name().into()]).collect();
                assert_examples(below, &words, examples);
            }
        }
    }
}
