//! What makes a snapshot one that can be forwarded by. Control calls it before it stores a change,
//! the data plane before it applies one: the same rules, the same words.

mod backend;
mod pool;
mod service;
mod value;

use std::net::IpAddr;

use crate::problems::{Problem, Problems};
use crate::snapshot::{MAX_GENERATION, Snapshot};
use crate::stats::Limits;

pub use crate::family::{NOT_YET, supported};
pub use backend::MAX_SERVICE_BACKENDS;
pub use pool::MAX_POOL_ADDRESSES;
pub use value::{is_host, is_name};

/// Everything that is wrong with a snapshot; empty when it can be applied. `port_addresses` are
/// the data plane's own, when they are known.
pub fn snapshot(snapshot: &Snapshot, limits: &Limits, port_addresses: &[IpAddr]) -> Problems {
    let mut problems = Problems::default();
    collect(&mut problems, snapshot, limits, port_addresses);
    problems
}

/// Adds everything that is wrong with a snapshot, as [`snapshot`] finds it.
pub fn collect(
    problems: &mut Problems,
    snapshot: &Snapshot,
    limits: &Limits,
    port_addresses: &[IpAddr],
) {
    limit(problems, "services", snapshot.services.len(), limits.services);
    let backends = snapshot.services.iter().map(|s| s.backends.len()).sum();
    limit(problems, "services[].backends", backends, limits.backends);
    pool::check(problems, snapshot, port_addresses);
    service::check(problems, snapshot, port_addresses);
    check_generation(problems, snapshot.generation);
}

/// What is wrong with the generation of a snapshot that differs in degree alone
/// ([`SnapshotService::differs_in_degree`](crate::SnapshotService::differs_in_degree)) from one with
/// which nothing was wrong: nothing else can be.
pub fn generation(generation: u64) -> Problems {
    let mut problems = Problems::default();
    check_generation(&mut problems, generation);
    problems
}

fn check_generation(problems: &mut Problems, generation: u64) {
    if generation > MAX_GENERATION {
        let expected = format!("at most {MAX_GENERATION}, which is 2^53");
        problems.push(Problem::new("generation", generation, expected));
    }
}

fn limit(problems: &mut Problems, field: &str, count: usize, most: u32) {
    if count > most as usize {
        let expected = format!("at most {most} in all, from [limits] of the data plane's file");
        problems.push(Problem::new(field, format!("{count} entries"), expected));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use crate::service::{AdminState, HashOn, NoConn, Protocol, Refusal, Scheduler};
    use crate::service::{Mode, Pool, TIMEOUT_MS, Timeouts};
    use crate::snapshot::SnapshotBackend;
    use crate::snapshot::SnapshotService;

    const PORT_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn backend(address: [u8; 4], port: u16) -> SnapshotBackend {
        let (weight, state) = (100, AdminState::Up);
        SnapshotBackend {
            address: address.into(),
            port,
            weight,
            max_conns: None,
            state,
            healthy: true,
        }
    }

    fn service(name: &str, vip: [u8; 4]) -> SnapshotService {
        SnapshotService {
            name: name.to_owned(),
            vip: vip.into(),
            port: 80,
            protocol: Protocol::Tcp,
            mode: Mode::FullNat,
            scheduler: Scheduler::Maglev,
            hash_on: HashOn::FiveTuple,
            maglev_slots: 65_537,
            max_conns: None,
            pool: Some("main".to_owned()),
            no_conn: NoConn::Reset,
            no_backend: Refusal::default(),
            timeouts: Timeouts::default(),
            backends: vec![backend([10, 1, 0, 1], 80), backend([10, 1, 0, 2], 8_080)],
        }
    }

    fn pool(name: &str, addresses: &[[u8; 4]]) -> Pool {
        Pool::new(name, addresses.iter().map(|a| (*a).into()).collect())
    }

    /// A full-NAT service `web`, a DR service `web-dr`, a pool `main`: nothing wrong.
    fn good() -> Snapshot {
        let web_dr = SnapshotService {
            mode: Mode::Dr,
            pool: None,
            backends: vec![backend([10, 1, 0, 1], 80)],
            ..service("web-dr", [192, 0, 2, 2])
        };
        Snapshot {
            generation: 1,
            services: vec![service("web", [192, 0, 2, 1]).into(), web_dr.into()],
            pools: vec![pool("main", &[[10, 0, 0, 10], [10, 0, 0, 11]])],
            no_service: Refusal::default(),
        }
    }

    fn check(snapshot: &Snapshot) -> Vec<Problem> {
        super::snapshot(snapshot, &Limits::default(), &[PORT_ADDRESS]).into_vec()
    }

    /// The problems of the good snapshot after a change, as (field, value, expected).
    fn after(change: impl FnOnce(&mut Snapshot)) -> Vec<(String, String, String)> {
        let mut changed = good();
        change(&mut changed);
        check(&changed).into_iter().map(|p| (p.field, p.value, p.expected)).collect()
    }

    #[track_caller]
    fn expect(change: impl FnOnce(&mut Snapshot), field: &str, value: &str, expected: &str) {
        let problem = (field.to_owned(), value.to_owned(), expected.to_owned());
        assert_eq!(after(change), [problem]);
    }

    #[test]
    fn a_good_snapshot_and_an_empty_one_have_no_problem() {
        assert_eq!(check(&good()), []);
        assert_eq!(check(&Snapshot::default()), []);
    }

    #[test]
    fn drained_addresses() {
        let drained = |list: &'static [[u8; 4]]| {
            move |s: &mut Snapshot| {
                s.pools[0].drained = list.iter().map(|a| (*a).into()).collect();
            }
        };
        assert_eq!(after(drained(&[[10, 0, 0, 11]])), []);
        let field = "pools[main].drained";
        expect(drained(&[[10, 0, 0, 12]]), field, "10.0.0.12", "an address of the pool");
        let twice = drained(&[[10, 0, 0, 11], [10, 0, 0, 11]]);
        expect(twice, field, "10.0.0.11", "each address once");
        let all = drained(&[[10, 0, 0, 10], [10, 0, 0, 11]]);
        expect(all, field, "all 2 addresses", "fewer, as new conns need one");
    }

    #[test]
    fn what_is_no_mistake() {
        let fine = |change: fn(&mut Snapshot)| assert_eq!(after(change), []);
        fine(|s| s.services[0].backends.clear());
        fine(|s| s.services[0].backends[0].weight = 0);
        fine(|s| s.services[0].backends[0].weight = u16::MAX);
        fine(|s| s.services[0].backends[1].address = s.services[0].backends[0].address);
        fine(|s| s.services[1].vip = [192, 0, 2, 109].into());
        fine(|s| {
            s.services[1].vip = s.services[0].vip;
            s.services[1].protocol = Protocol::Udp;
        });
        fine(|s| {
            s.services[1] = s.services[0].clone();
            s.services[1].port = 443;
            s.services[1].name = "web-tls".to_owned();
        });
        fine(|s| s.services[0].maglev_slots = 251);
        fine(|s| s.services[0].maglev_slots = 655_373);
        fine(|s| s.services[0].timeouts.tcp_established_ms = *TIMEOUT_MS.end());
        fine(|s| s.services[0].timeouts.udp_one_way_ms = 1);
        fine(|s| s.services[0].name = format!("{}0-._", "a".repeat(59)));
        fine(|s| s.pools.push(pool("unused", &[[10, 0, 0, 12]])));
    }

    #[test]
    fn limits_count_all_services_and_all_backends() {
        let limits = Limits { services: 1, backends: 2, ..Limits::default() };
        let problems = super::snapshot(&good(), &limits, &[]);
        let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(
            lines,
            [
                "services is 2 entries: expected at most 1 in all, from [limits] of the data plane's file",
                "services[].backends is 3 entries: expected at most 2 in all, from [limits] of the data plane's file",
            ]
        );
        let limits = Limits { services: 2, backends: 3, ..Limits::default() };
        assert_eq!(super::snapshot(&good(), &limits, &[]).into_vec(), []);
    }

    #[test]
    fn names_of_services() {
        let expected = "1 to 63 of a-z, 0-9, '-', '.', '_', at least one a letter or digit";
        let long = "a".repeat(64);
        for (name, label, value) in [
            ("", "", "\"\""),
            ("Web", "Web", "\"Web\""),
            ("a b", "a b", "\"a b\""),
            ("a/b", "a/b", "\"a/b\""),
            ("wéb", "wéb", "\"wéb\""),
            ("a\nb", "a\\nb", "\"a\\nb\""),
            ("..", "..", "\"..\""),
            (&long, &long, &format!("{long:?}")),
        ] {
            let field = format!("services[{label}].name");
            expect(|s| s.services[0].name = name.to_owned(), &field, value, expected);
        }
        expect(
            |s| s.services[1].name = "web".to_owned(),
            "services[web].name",
            "\"web\"",
            "a name that no other service has",
        );
    }

    #[test]
    fn names_of_pools() {
        let rename = |s: &mut Snapshot, name: &str| {
            s.pools[0].name = name.to_owned();
            s.services[0].pool = Some(name.to_owned());
        };
        expect(
            |s| rename(s, "Main\n"),
            "pools[Main\\n].name",
            "\"Main\\n\"",
            "1 to 63 of a-z, 0-9, '-', '.', '_', at least one a letter or digit",
        );
        expect(
            |s| s.pools.push(pool("main", &[[10, 0, 0, 12]])),
            "pools[main].name",
            "\"main\"",
            "a name that no other pool has",
        );
    }

    #[test]
    fn ipv6_is_refused_with_not_yet() {
        let address: IpAddr = "fd00::1".parse().unwrap();
        expect(|s| s.services[0].vip = address, "services[web].vip", "fd00::1", NOT_YET);
        expect(|s| s.pools[0].addresses[0] = address, "pools[main].addresses", "fd00::1", NOT_YET);
        let mut changed = good();
        changed.services[0].backends[0].address = address;
        let id = changed.services[0].backends[0].id();
        assert_eq!(
            check(&changed)[0].to_string(),
            format!(
                "services[web].backends[{id}].address is fd00::1: expected an IPv4 address, as IPv6 \
                 is not supported yet"
            )
        );
    }

    #[test]
    fn addresses_of_pools() {
        let field = "pools[main].addresses";
        expect(|s| s.pools[0].addresses.clear(), field, "0 addresses", "1 to 256 addresses");
        let many =
            |count: u32| (0..count).map(|i| Ipv4Addr::from(0x0a09_0000 + i).into()).collect();
        expect(|s| s.pools[0].addresses = many(257), field, "257 addresses", "1 to 256 addresses");
        assert_eq!(after(|s| s.pools[0].addresses = many(256)), []);

        for no_host in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            let address = no_host.parse().unwrap();
            expect(|s| s.pools[0].addresses[0] = address, field, no_host, "a unicast address");
        }
        expect(
            |s| s.pools[0].addresses[1] = s.services[1].vip,
            field,
            "192.0.2.2",
            "an address that is no VIP; service web-dr has it as its VIP",
        );
        expect(
            |s| s.pools[0].addresses[1] = PORT_ADDRESS,
            field,
            "10.0.0.1",
            "an address that no port of the data plane has",
        );
        expect(
            |s| s.pools[0].addresses[1] = s.pools[0].addresses[0],
            field,
            "10.0.0.10",
            "each address once; pool main has it already",
        );
        expect(
            |s| s.pools.push(pool("other", &[[10, 0, 0, 11]])),
            "pools[other].addresses",
            "10.0.0.11",
            "each address once; pool main has it already",
        );
    }

    #[test]
    fn vip_port_and_protocol() {
        for no_host in ["0.0.0.0", "127.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"] {
            let vip = no_host.parse().unwrap();
            expect(|s| s.services[0].vip = vip, "services[web].vip", no_host, "a unicast address");
        }
        expect(
            |s| s.services[0].vip = PORT_ADDRESS,
            "services[web].vip",
            "10.0.0.1",
            "an address that no port of the data plane has",
        );
        expect(|s| s.services[0].port = 0, "services[web].port", "0", "1 to 65535");
        expect(
            |s| s.services[1].vip = s.services[0].vip,
            "services[web-dr].port",
            "192.0.2.1:80/tcp",
            "a VIP, port and protocol that no other service has; web has these",
        );
    }

    #[test]
    fn maglev_slots() {
        let expected = "a prime from 251 to 655373";
        for slots in [0, 1, 2, 241, 250, 65_536, 65_539 * 2, 251 * 251, 655_379, u32::MAX] {
            let value = slots.to_string();
            let field = "services[web].maglev_slots";
            expect(|s| s.services[0].maglev_slots = slots, field, &value, expected);
        }
    }

    #[test]
    fn pool_by_mode() {
        expect(
            |s| s.services[0].pool = None,
            "services[web].pool",
            "absent",
            "the name of a pool, as mode full-nat needs local addresses",
        );
        expect(
            |s| s.services[0].pool = Some("mian".to_owned()),
            "services[web].pool",
            "\"mian\"",
            "the name of a pool (main)",
        );
        expect(
            |s| s.pools.clear(),
            "services[web].pool",
            "\"main\"",
            "the name of a pool (there is none)",
        );
        expect(
            |s| {
                let more = |i: u8| pool(&format!("p{i}"), &[[10, 9, 0, i]]);
                s.pools = (0..10).map(more).collect();
            },
            "services[web].pool",
            "\"main\"",
            "the name of a pool (p0, p1, p2, p3, p4, p5, p6, p7 and 2 more)",
        );
        expect(
            |s| s.services[1].pool = Some("main".to_owned()),
            "services[web-dr].pool",
            "\"main\"",
            "no pool, as mode dr keeps the client's address",
        );
    }

    #[test]
    fn every_timeout_has_its_bounds() {
        type Field = fn(&mut Timeouts) -> &mut u32;
        let fields: [(&str, Field); 9] = [
            ("tcp_syn_sent_ms", |t| &mut t.tcp_syn_sent_ms),
            ("tcp_syn_received_ms", |t| &mut t.tcp_syn_received_ms),
            ("tcp_established_ms", |t| &mut t.tcp_established_ms),
            ("tcp_fin_wait_ms", |t| &mut t.tcp_fin_wait_ms),
            ("tcp_last_ack_ms", |t| &mut t.tcp_last_ack_ms),
            ("tcp_time_wait_ms", |t| &mut t.tcp_time_wait_ms),
            ("tcp_closed_ms", |t| &mut t.tcp_closed_ms),
            ("udp_one_way_ms", |t| &mut t.udp_one_way_ms),
            ("udp_two_way_ms", |t| &mut t.udp_two_way_ms),
        ];
        for (name, of) in fields {
            let field = format!("services[web].timeouts.{name}");
            for wrong in [0, 604_800_001, u32::MAX] {
                let set = |s: &mut Snapshot| *of(&mut s.services[0].timeouts) = wrong;
                expect(set, &field, &wrong.to_string(), "1 to 604800000 ms");
            }
        }
    }

    #[test]
    fn backends() {
        expect(
            |s| s.services[0].backends[1] = s.services[0].backends[0].clone(),
            "services[web].backends[10.1.0.1:80]",
            "listed twice",
            "each address:port once in a service",
        );
        for no_host in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            expect(
                |s| s.services[0].backends[0].address = no_host.parse().unwrap(),
                &format!("services[web].backends[{no_host}:80].address"),
                no_host,
                "a unicast address",
            );
        }
        for (own, expected) in [
            ("192.0.2.1", "an address that is not a VIP of this load balancer"),
            ("192.0.2.2", "an address that is not a VIP of this load balancer"),
            ("10.0.0.11", "an address that is in no pool of this load balancer"),
            ("10.0.0.1", "an address that no port of the data plane has"),
        ] {
            expect(
                |s| s.services[0].backends[0].address = own.parse().unwrap(),
                &format!("services[web].backends[{own}:80].address"),
                own,
                expected,
            );
        }
        expect(
            |s| s.services[0].backends[0].port = 0,
            "services[web].backends[10.1.0.1:0].port",
            "0",
            "1 to 65535",
        );
        expect(
            |s| s.services[1].backends[0].port = 8_080,
            "services[web-dr].backends[10.1.0.1:8080].port",
            "8080",
            "80, as mode dr cannot change the L4 port",
        );
    }

    #[test]
    fn a_service_has_at_most_65535_backends() {
        let mut snapshot = good();
        let many = |count: u32| {
            let one = |i: u32| backend((0x0b00_0000 + i).to_be_bytes(), 80);
            (0..count).map(one).collect()
        };
        let limits = Limits { backends: 1_000_000, ..Limits::default() };
        snapshot.services[0].backends = many(65_535);
        assert_eq!(super::snapshot(&snapshot, &limits, &[]).into_vec(), []);
        snapshot.services[0].backends = many(65_536);
        let problem = Problem::new(
            "services[web].backends",
            "65536 backends",
            "at most 65535 in one service",
        );
        assert_eq!(super::snapshot(&snapshot, &limits, &[]).into_vec(), [problem]);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let problems = after(|s| {
            s.pools[0].addresses[0] = PORT_ADDRESS;
            s.services[0].port = 0;
            s.services[0].maglev_slots = 4;
            s.services[1].backends[0].port = 81;
        });
        let fields: Vec<&str> = problems.iter().map(|(field, ..)| field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "pools[main].addresses",
                "services[web].port",
                "services[web].maglev_slots",
                "services[web-dr].backends[10.1.0.1:81].port",
            ]
        );
    }

    #[test]
    fn a_large_snapshot_validates_within_a_second() {
        let mut large = Snapshot::default();
        for i in 0..10_000u32 {
            let name = format!("s{i}");
            let mut one = service(&name, (0x0b00_0000 + i).to_be_bytes());
            let of = |b: u32| backend((0x0c00_0000 + i * 10 + b).to_be_bytes(), 80);
            one.backends = (0..10).map(of).collect();
            one.pool = Some(format!("p{}", i % 1_000));
            large.services.push(one.into());
        }
        let pool_of = |i: u32| pool(&format!("p{i}"), &[(0x0d00_0000 + i).to_be_bytes()]);
        large.pools = (0..1_000).map(pool_of).collect();
        let limits = Limits { services: 10_000, backends: 100_000, ..Limits::default() };

        let start = std::time::Instant::now();
        assert_eq!(super::snapshot(&large, &limits, &[PORT_ADDRESS]).into_vec(), []);
        let took = start.elapsed();
        assert!(took.as_millis() < 1_000, "{took:?}");
    }
}
