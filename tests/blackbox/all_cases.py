"""Every module with cases: importing it puts them into the table."""

import cases_arp
import cases_config
import cases_dr
import cases_ends
import cases_headers
import cases_host
import cases_icmp
import cases_life
import cases_next_hop
import cases_off_path
import cases_random
import cases_refusals
import cases_schedule
import cases_tcp
import cases_udp
import cases_wire

MODULES = (
    cases_headers,
    cases_wire,
    cases_arp,
    cases_host,
    cases_tcp,
    cases_udp,
    cases_dr,
    cases_icmp,
    cases_next_hop,
    cases_off_path,
    cases_refusals,
    cases_config,
    cases_life,
    cases_ends,
    cases_schedule,
    cases_random,
)
