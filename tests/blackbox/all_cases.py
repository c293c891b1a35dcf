"""Every module with cases: importing it puts them into the table."""

import cases_arp
import cases_dr
import cases_headers
import cases_host
import cases_tcp
import cases_udp

MODULES = (cases_headers, cases_arp, cases_host, cases_tcp, cases_udp, cases_dr)
