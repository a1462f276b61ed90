"""A decoder process gives up files, network, other processes and memory dumps once its libraries are loaded.

A file that takes a C library over can do what its process can do. The layers overlap, so that an error in one leaves
another. All are plain system calls: prctl(2), capset(2), unshare(2), landlock(7), and seccomp(2) with an allow-list.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

LAYERS = ("undumpable", "capabilities", "namespaces", "landlock", "seccomp")
NEEDED = frozenset({"undumpable", "seccomp"})
"""Without these no photo is decoded: every Linux with a filter for its architecture has them."""

_LIBC = ctypes.CDLL(None, use_errno=True)

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SYS_LANDLOCK_CREATE, _SYS_LANDLOCK_RESTRICT = 444, 446  # the same on every architecture
_LANDLOCK_VERSION = 1
_HEAP = {-8: 2, -3: 64 << 20, -1: 128 << 20}  # M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of mallopt(3)
_CAPABILITIES_V3 = 0x20080522

# Rights of files that each version of Landlock knows (linux/landlock.h): all are handled, none is granted.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_NETWORK_RIGHTS, _NETWORK_SINCE = 0b11, 4  # bind and connect of TCP
_SCOPES, _SCOPES_SINCE = 0b11, 6  # abstract sockets of others, and signals to others

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Each with its number on x86_64 and on aarch64, - where that has no such call. None opens, makes or finds anything.
_ALLOWED = """
    read 0 63, write 1 64, lseek 8 62, recvfrom 45 207, sendto 44 206, mmap 9 222, munmap 11 215, brk 12 214,
    mremap 25 216,
    madvise 28 233, mprotect 10 226, futex 202 98, setitimer 38 103, clock_gettime 228 113, rt_sigaction 13 134,
    rt_sigprocmask 14 135, rt_sigreturn 15 139, restart_syscall 219 128, sigaltstack 131 132, close 3 57, poll 7 -,
    ppoll 271 73, shutdown 48 210, sched_yield 24 124, sched_getaffinity 204 123, nanosleep 35 101,
    clock_nanosleep 230 115, clock_getres 229 114, gettimeofday 96 169, getrandom 318 278, getpid 39 172,
    gettid 186 178, getcpu 309 168, getrusage 98 165, getrlimit 97 163, setrlimit 160 164, sysinfo 99 179,
    uname 63 160, membarrier 324 283, rseq 334 293, set_robust_list 273 99, exit 60 93, exit_group 231 94
"""
# Only where the first argument is the process itself: kill and tgkill (by its number) for abort(3), prlimit64 (by 0).
_OWN_PID, _OWN_ZERO = ((62, 129), (234, 131)), ((302, 261),)

_SECCOMP_MODE_FILTER = 2
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | 1  # SECCOMP_RET_ERRNO with EPERM
_NUMBER_AT, _ARCH_AT, _ARGUMENT_AT = 0, 4, 16  # in struct seccomp_data; the low half of an argument on little endian


def confine() -> tuple[str, ...]:
    """Give everything up, for good; returns the LAYERS that this kernel granted.

    To be called with one thread, with every file open that is still needed and every library loaded.
    """
    granted = {
        # A new user namespace comes with all capabilities inside it, so it is entered before those are dropped.
        "namespaces": leave_namespaces(),
        "undumpable": make_undumpable(),
        "capabilities": drop_capabilities(),
        "landlock": forbid_files(),
        "seccomp": filter_calls(),
    }
    return tuple(layer for layer in LAYERS if granted[layer])


def bound_heap() -> None:
    """Have glibc keep what threads free in two heaps, and not one each, and give back no block below 64 MB.

    Else memory grows with the number of threads that a job ever had, and each photo's pixels are fetched anew from the
    kernel.
    """
    if hasattr(_LIBC, "mallopt"):
        for option, value in _HEAP.items():
            _LIBC.mallopt(option, value)


def make_undumpable() -> bool:
    """No other process of this user may read this one's memory, environment or files in /proc, nor trace it."""
    return _prctl(_PR_SET_DUMPABLE, 0)


def leave_namespaces() -> bool:
    """Into an empty network, and a user namespace in which this user owns nothing."""
    return bool(_LIBC.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def drop_capabilities() -> bool:
    """All of them: root is then a user like any other."""
    header, none = struct.pack("Ii", _CAPABILITIES_V3, 0), bytes(24)
    return bool(_LIBC.capset(header, none) == 0)


def forbid_files() -> bool:
    """Nothing can be opened, made, removed, bound or connected to, and no process outside be traced or signalled.

    Open files stay open.
    """
    version = _LIBC.syscall(_SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    if version < 1:
        return False
    rights = _FILE_RIGHTS[max(known for known in _FILE_RIGHTS if known <= version)]
    network = _NETWORK_RIGHTS if version >= _NETWORK_SINCE else 0
    scopes = _SCOPES if version >= _SCOPES_SINCE else 0
    # An older kernel takes a longer struct if the fields that it does not know are 0.
    attributes = struct.pack("QQQ", rights, network, scopes)
    ruleset = _LIBC.syscall(_SYS_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    try:
        return _prctl(_PR_SET_NO_NEW_PRIVS, 1) and _LIBC.syscall(_SYS_LANDLOCK_RESTRICT, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def filter_calls() -> bool:
    """Every system call but those of _ALLOWED fails with EPERM from now on; False on a machine that is in no table."""
    machine = platform.machine()
    if machine not in _AUDIT_ARCH or struct.calcsize("P") != 8:
        return False
    program = _program(machine, os.getpid())
    code = ctypes.create_string_buffer(b"".join(program))
    pointed = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    return _prctl(_PR_SET_NO_NEW_PRIVS, 1) and _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, pointed)


def _program(machine: str, pid: int) -> list[bytes]:
    """The filter in classic BPF (linux/filter.h): code, instructions to skip if equal, if not, and a value each."""
    column = list(_AUDIT_ARCH).index(machine)
    program = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_JUMP_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for call in _ALLOWED.split(","):
        if (number := call.split()[1 + column]) != "-":
            program += [(_JUMP_EQUAL, 0, 1, int(number)), (_RETURN, 0, 0, _ALLOW)]
    for numbers, argument in (*((own, pid) for own in _OWN_PID), *((own, 0) for own in _OWN_ZERO)):
        program += [(_JUMP_EQUAL, 0, 4, numbers[column]), (_LOAD, 0, 0, _ARGUMENT_AT)]
        program += [(_JUMP_EQUAL, 0, 1, argument), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return [struct.pack("HBBI", *instruction) for instruction in [*program, (_RETURN, 0, 0, _REFUSE)]]


def _prctl(option: int, value: int, pointed: bytes | None = None) -> bool:
    zero = ctypes.c_ulong(0)
    return bool(_LIBC.prctl(option, ctypes.c_ulong(value), pointed or zero, zero, zero) == 0)
