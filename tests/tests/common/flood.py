"""Send a flood of packets for a host: udp or syn, to many ports, from many ports, at a rate.

flood.py INTERFACE DESTINATION_MAC SOURCE DESTINATION KIND PACKETS_PER_SECOND SECONDS
Prints how many packets it has sent in how many seconds.
"""
import socket
import struct
import sys
import time

interface, mac, source, destination, kind, rate, seconds = sys.argv[1:]
rate, seconds = int(rate), float(seconds)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind((interface, 0))
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
sender.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
own_mac = sender.getsockname()[4]
addresses = socket.inet_aton(source) + socket.inet_aton(destination)
frames = []
for n in range(2048):
    ports = struct.pack("!HH", 20000 + n, 30000 + n % 1000)
    if kind == "udp":
        protocol, l4 = 17, ports + struct.pack("!HH", 8 + 18, 0) + b"x" * 18
    else:
        protocol = 6
        head = ports + struct.pack("!IIBBH", n * 7919, 0, 0x50, 0x02, 8192)
        pseudo = addresses + struct.pack("!BBH", 0, protocol, 20)
        l4 = head + struct.pack("!HH", checksum(pseudo + head + b"\0" * 4), 0)
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(l4), n, 0, 64, protocol)
    ip = head + struct.pack("!H", checksum(head + b"\0\0" + addresses)) + addresses
    frames.append(bytes.fromhex(mac.replace(":", "")) + own_mac + b"\x08\x00" + ip + l4)

began = time.monotonic()
sent = 0
while True:
    passed = time.monotonic() - began
    if passed > seconds:
        break
    # What is due by now, in small lots, so that others have their turn.
    for _ in range(min(int(passed * rate) - sent, 128)):
        try:
            sender.send(frames[sent % len(frames)])
        except OSError:
            pass
        sent += 1
    time.sleep(0.0005)
print(sent, round(time.monotonic() - began, 2))
