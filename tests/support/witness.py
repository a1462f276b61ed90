"""Every packet that leaves a network namespace, told by the kernel: where to, by which protocol, how often.

A witness is a process inside the namespace with a raw socket on each interface, this file as a script. `outside` builds
the namespace: a loopback, and one link to an empty network that holds the one server the programs may talk to. The
default route leads there too, so a packet for anybody else does leave, is seen, and reaches nobody.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from select import select
from shutil import which

SERVER, CLIENT = "10.77.0.1", "10.77.0.2"
LINK = "leaves"
ETH_P_ALL, ETH_P_IP, ETH_P_ARP, ETH_P_IPV6 = 0x0003, 0x0800, 0x0806, 0x86DD
SOL_PACKET, PACKET_STATISTICS, PACKET_OUTGOING = 263, 6, 4
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}
_SNAP = 128
_BUFFER = 64 << 20


@dataclass(frozen=True, order=True)
class Destination:
    """Where packets went; the port is 0 where the protocol has none. `asked`: the name, if it was a name server."""

    interface: str
    protocol: str
    address: str
    port: int
    asked: str = ""


def refused() -> str | None:
    """Why there can be no namespace here; None if there can."""
    absent = [tool for tool in ("unshare", "nsenter", "ip") if which(tool) is None]
    if absent:
        return f"{', '.join(absent)} not installed"
    tried = subprocess.run([*new_namespace(), "ip", "link", "set", "lo", "up"], capture_output=True, text=True)
    return f"no network namespaces here: {tried.stderr.strip()}" if tried.returncode else None


def new_namespace() -> list[str]:
    """The command before a command that is to run in a network namespace of its own."""
    return ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]


@dataclass
class Inside:
    """The inner namespace, held by a process that does nothing."""

    holder: int

    def command(self, *command: str) -> list[str]:
        """A command so that it runs inside."""
        return ["nsenter", f"--target={self.holder}", "--net", *command]

    @contextmanager
    def watched(self) -> Iterator[Counter[Destination]]:
        """What leaves during the block; filled at its end. Raises AssertionError if packets were missed."""
        with subprocess.Popen(
            self.command(sys.executable, __file__), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "watching\n"
            seen: Counter[Destination] = Counter()
            try:
                yield seen
            finally:
                process.send_signal(signal.SIGTERM)
                for line in process.stdout:
                    *where, count = json.loads(line)
                    seen[Destination(*where)] = count
        assert seen.pop(Destination("", "missed", "", 0)) == 0, "the witness was too slow"


@contextmanager
def outside() -> Iterator[Inside]:
    """Called in a fresh namespace: makes another one inside, joined to it by one link, and ends it afterwards."""
    _run("ip link set lo up")
    # It ends with its input, and so with this process, however this one ends.
    holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
    try:
        while Path(f"/proc/{holder.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
            time.sleep(0.01)
        inside = Inside(holder.pid)
        _run(f"ip link add server type veth peer name {LINK} netns {holder.pid}")
        _run(f"ip address add {SERVER}/24 dev server")
        _run("ip link set server up")
        # The kernel's own search for IPv6 neighbours is no program's doing.
        _run(f"echo 1 > /proc/sys/net/ipv6/conf/{LINK}/disable_ipv6", inside)
        for command in ("link set lo up", f"address add {CLIENT}/24 dev {LINK}", f"link set {LINK} up"):
            _run(f"ip {command}", inside)
        _run(f"ip route add default via {SERVER}", inside)
        yield inside
    finally:
        holder.kill()
        holder.communicate()


def _run(command: str, inside: Inside | None = None) -> None:
    shell = ["sh", "-c", command]
    subprocess.run(inside.command(*shell) if inside else shell, check=True)


def watch() -> None:
    """Count until SIGTERM, then print a line for each destination, and how many packets were missed."""
    stop: list[object] = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    sockets = []
    for _, interface in socket.if_nameindex():
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        listener.setsockopt(socket.SOL_SOCKET, 33, _BUFFER)  # SO_RCVBUFFORCE
        listener.bind((interface, ETH_P_ALL))
        sockets.append(listener)
    seen: Counter[Destination] = Counter()
    print("watching", flush=True)
    while not stop:
        _take(select(sockets, [], [], 0.1)[0], seen)
    _take(sockets, seen)
    missed = sum(struct.unpack("II", one.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1] for one in sockets)
    for where, count in [*sorted(seen.items()), (Destination("", "missed", "", 0), missed)]:
        print(json.dumps([*vars(where).values(), count]))


def _take(sockets: Sequence[socket.socket], seen: Counter[Destination]) -> None:
    """All that waits now."""
    for one in sockets:
        for _ in range(10_000):
            try:
                packet, (interface, kind, direction, *_) = one.recvfrom(_SNAP, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if direction == PACKET_OUTGOING:
                seen[destination(interface, kind, packet)] += 1


def destination(interface: str, kind: int, packet: bytes) -> Destination:
    """Of one packet, without its Ethernet header."""
    if kind == ETH_P_ARP:
        return Destination(interface, "arp", socket.inet_ntoa(packet[24:28]), 0)
    if kind == ETH_P_IP:
        protocol, start, address = packet[9], (packet[0] & 15) * 4, socket.inet_ntoa(packet[16:20])
    elif kind == ETH_P_IPV6:
        protocol, start, address = packet[6], 40, socket.inet_ntop(socket.AF_INET6, packet[24:40])
    else:
        return Destination(interface, f"ethertype {kind:#06x}", "", 0)
    name = _PROTOCOLS.get(protocol, str(protocol))
    port = struct.unpack_from(">H", packet, start + 2)[0] if name in ("tcp", "udp") else 0
    asked = _name(packet[start + 20 :]) if (name, port) == ("udp", 53) else ""
    return Destination(interface, name, address, port, asked)


def _name(question: bytes) -> str:
    """The first name in a question to a name server (RFC 1035, 4.1.2), as far as the packet was kept."""
    labels = []
    while question and question[0]:
        labels.append(question[1 : 1 + question[0]].decode("ascii", "replace"))
        question = question[1 + question[0] :]
    return ".".join(labels)


if __name__ == "__main__":
    watch()
