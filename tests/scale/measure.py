#!/usr/bin/env python3
"""Measures control and data plane with 2,284 services and 37,298 backends (the size of keepalived#2318), as real
processes in a network namespace of their own: file to forwarding, one weight to the workers, weights by the
thousand. Needs root. Prints JSON.

usage: measure.py BINARIES [--seconds 30] [--rate 1000] [--clients 4]
"""

import argparse
import http.client
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

SERVICES, BACKENDS = 2_284, 37_298
NAMESPACE = "sluice-scale"
VERSION = 1

DATAPLANE = """
[runtime]
main_cpu = 0
worker_cpus = [1]
hugepages = false
memory_mb = 256
file_prefix = "sluice-scale"
announce_every_s = 0
eal_args = ["--no-pci", "--no-telemetry"]
[control]
socket = "{dir}/dataplane.sock"
[limits]
connections = 65536
services = 4096
backends = 65536
[[port]]
name = "lan"
device = "net_af_xdp0,iface=p0"
addresses = ["10.93.0.1/16"]
[[route]]
destination = "172.16.0.0/12"
via = "10.93.0.254"
"""


def address(base, n):
    return socket.inet_ntoa(struct.pack("!I", base + n))


def control_file(directory):
    lines = [f'[control]\napi_listen = "127.0.0.1:9600"\ndataplane_socket = "{directory}/dataplane.sock"',
             f'state_file = "{directory}/state.json"', "[[pool]]\nname = \"lan\"",
             "addresses = [" + ", ".join(f'"10.93.255.{n}"' for n in range(1, 9)) + "]"]
    for n in range(SERVICES):
        lines.append(f'[[service]]\nname = "s{n}"\nvip = "{address(0x0A5D1000, n)}"\nport = 80\n'
                     'protocol = "tcp"\nmode = "full-nat"\npool = "lan"')
        many = BACKENDS // SERVICES + (n < BACKENDS % SERVICES)
        for k in range(many):
            lines.append(f'[[service.backend]]\naddress = "{address(0xAC100000, n * 32 + k)}"\nport = 80')
    return "\n".join(lines) + "\n"


def ask(path, request):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(30)
        stream.connect(path)
        message = json.dumps({"version": VERSION, "message": {"request": request}}).encode()
        stream.sendall(struct.pack("!I", len(message)) + message)
        with stream.makefile("rb") as answer:
            length = struct.unpack("!I", answer.read(4))[0]
            return json.loads(answer.read(length))["message"]


def memory_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return {"rss": int(fields["VmRSS"].split()[0]) // 1024, "peak": int(fields["VmHWM"].split()[0]) // 1024}


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def until(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.005)
    sys.exit(f"{what}: not within {seconds} s")


class Client:
    def __init__(self):
        self.connection = http.client.HTTPConnection("127.0.0.1", 9600, timeout=60)

    def patch(self, n, k, weight, wait_ms=None):
        path = f"/api/v1/services/s{n}/backends/{address(0xAC100000, n * 32 + k)}:80"
        if wait_ms is not None:
            path += f"?wait_ms={wait_ms}"
        headers = {"content-type": "application/merge-patch+json", "sluice-client": "scale"}
        self.connection.request("PATCH", path, json.dumps({"weight": weight}), headers)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status not in (200, 202):
            raise RuntimeError(f"{answer.status}: {body[:300]}")
        return answer.status


def spread(values):
    values = sorted(values)
    at = lambda part: round(values[min(len(values) - 1, int(part * len(values)))] * 1000, 2)
    return {"median_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1)}


def storm(seconds, rate, clients):
    """Weights at a steady rate from several clients that keep their connections; how long each answer took."""
    took, failures, lock = [], [], threading.Lock()
    start = time.monotonic()

    def run(number):
        client, mine = Client(), []
        for i in range(number, int(seconds * rate), clients):
            due = start + i / rate
            now = time.monotonic()
            if now - start > seconds:
                break
            if due > now:
                time.sleep(due - now)
            began = time.monotonic()
            try:
                client.patch((i * 7) % SERVICES, i % 16, 1 + i % 1000)
            except Exception as error:  # counted, and told
                failures.append(str(error))
                break
            mine.append(time.monotonic() - began)
        with lock:
            took.extend(mine)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(clients)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    elapsed = time.monotonic() - start
    return {"changes": len(took), "per_s": round(len(took) / elapsed), "failures": failures[:3], **spread(took)}


def measure(arguments, directory, started):
    socket_path = f"{directory}/dataplane.sock"
    for name, text in (("dataplane.toml", DATAPLANE.format(dir=directory)), ("control.toml", control_file(directory))):
        with open(f"{directory}/{name}", "w") as file:
            file.write(text)

    def start(program, config):
        log = open(f"{directory}/{program}.log", "w")
        process = subprocess.Popen([f"{arguments.binaries}/{program}", "--config", f"{directory}/{config}"],
                                   stdout=log, stderr=log)
        started.append(process)
        return process

    dataplane = start("sluice-dataplane", "dataplane.toml")
    until("the data plane answers", lambda: ask(socket_path, "status"))
    result = {"services": SERVICES, "backends": BACKENDS}

    def is_forwarding():
        status = ask(socket_path, "status")
        return status["generation"] > 0 and status["workers_generation"] == status["generation"]

    for key in ("file_to_forwarding_s", "restart_to_forwarding_s"):
        began = time.monotonic()
        control = start("sluice-control", "control.toml")
        if key == "file_to_forwarding_s":
            until("forwarding", is_forwarding)
        else:
            until("control answers", lambda: Client().patch(0, 0, 7, 60_000) == 200)
        result[key] = round(time.monotonic() - began, 2)
        if key == "file_to_forwarding_s":
            time.sleep(1)
            control.terminate()
            control.wait()
    client, took = Client(), []
    for i in range(50):
        began = time.monotonic()
        status = client.patch(i * 40, i % 16, 2 + i, 10_000)
        took.append(time.monotonic() - began)
        assert status == 200, status
        time.sleep(0.05)
    result["one_weight_to_workers"] = spread(took)
    before = cpu_s(control.pid), cpu_s(dataplane.pid), ask(socket_path, "status")["generation"]
    result["storm"] = storm(arguments.seconds, arguments.rate, arguments.clients)
    began = time.monotonic()
    # A connection of its own: control has closed the one that was idle meanwhile.
    Client().patch(0, 0, 999, 60_000)
    result["storm"]["all_in_force_after_s"] = round(time.monotonic() - began, 3)
    after = cpu_s(control.pid), cpu_s(dataplane.pid), ask(socket_path, "status")["generation"]
    result["storm"]["control_cpu_s"] = round(after[0] - before[0], 1)
    result["storm"]["dataplane_cpu_s"] = round(after[1] - before[1], 1)
    result["storm"]["snapshots"] = after[2] - before[2]
    result["control_mb"], result["dataplane_mb"] = memory_mb(control.pid), memory_mb(dataplane.pid)
    result["disk_kb"] = sum(entry.stat().st_size for entry in os.scandir(directory)
                            if entry.name.startswith(("state", "control.db", "sluice.db"))) // 1024
    stats = ask(socket_path, "stats")
    result["main_thread"] = stats.get("main_thread")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("binaries", help="directory of sluice-dataplane and sluice-control")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        # The backends' gateway is a namespace of its own: it answers ARP, and that is all.
        namespaces = NAMESPACE, f"{NAMESPACE}-far"
        run = lambda *words: subprocess.run(["ip", *words], check=True)
        for name in namespaces:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)
        try:
            for name in namespaces:
                run("netns", "add", name)
            queues = ["numtxqueues", "1", "numrxqueues", "1"]
            run("-n", NAMESPACE, "link", "add", "p0", *queues, "type", "veth", "peer", "name", "p1", *queues,
                "netns", namespaces[1])
            run("-n", NAMESPACE, "link", "set", "lo", "up")
            run("-n", NAMESPACE, "link", "set", "p0", "up")
            run("-n", namespaces[1], "link", "set", "p1", "up")
            run("-n", namespaces[1], "addr", "add", "10.93.0.254/16", "dev", "p1")
            inside = ["ip", "netns", "exec", NAMESPACE, sys.executable, *sys.argv, "--inside"]
            sys.exit(subprocess.run(inside, check=False).returncode)
        finally:
            for name in namespaces:
                subprocess.run(["ip", "netns", "del", name], check=False)
    directory, started = tempfile.mkdtemp(prefix="sluice-scale-"), []
    try:
        print(json.dumps(measure(arguments, directory, started), indent=2))
    except BaseException:
        for name in ("sluice-dataplane", "sluice-control"):
            if os.path.exists(f"{directory}/{name}.log"):
                with open(f"{directory}/{name}.log") as log:
                    sys.stderr.write(f"--- {name}\n{log.read()[-2000:]}\n")
        raise
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
