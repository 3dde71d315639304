"""Attacks on the network: every way to a listener, and to where clouds keep credentials."""

from tests.attacks.model import Attack

_RUN = "import socket\ndef run(args):\n    "

ATTACKS = [
    Attack(
        "TCP to loopback",
        _RUN + "socket.create_connection(('127.0.0.1', args['tcp']), 2).sendall(b'x')",
        lambda aim, _: aim.received(aim.tcp),
        group="network",
    ),
    Attack(
        "UDP to loopback",
        _RUN + "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', args['udp']))",
        lambda aim, _: aim.received(aim.udp),
        group="network",
    ),
    Attack(
        "abstract unix socket",
        _RUN + "socket.socket(socket.AF_UNIX).connect(chr(0) + args['unix'])",
        lambda aim, _: aim.received(aim.unix),
        group="network",
    ),
    Attack(
        "datagrams of a socket pair to a name",
        _RUN
        + "one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n    one.sendto(b'x', chr(0) + args['unix'])",
        lambda aim, _: aim.received(aim.unix),
        group="network",
        is_control=False,  # a stream listener takes no datagrams
    ),
    Attack(
        "the metadata address",
        _RUN
        + """import errno
    try:
        socket.create_connection(("169.254.169.254", 80), 0.5)
    except OSError as error:
        return error.errno
    return 0""",
        lambda _, value: value not in (None, 1),  # no route and no answer are got by asking; EPERM is not
        group="network",
    ),
    Attack(
        "use of the descriptors it was given",
        """import os
def run(args):
    found = []
    for number in range(4, 1024):
        try:
            os.fstat(number)
            found.append(number)
        except OSError:
            pass
    return found""",
        lambda _, value: bool(value),
        group="network",
    ),
]
