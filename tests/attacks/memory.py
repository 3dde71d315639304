"""Attacks on memory and on what reads the answer. Runaways, which must only end in time, are in the test itself."""

from tests.attacks.model import Attack

_BOMB = """import zlib
def run(args):
    packer = zlib.compressobj(wbits=-15)
    megabyte = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    return len(zlib.decompressobj(-15).decompress(megabyte * args.get("megabytes", 2_000)))"""

ATTACKS = [
    Attack(
        "two gigabytes of memory",
        "def run(args):\n    return len(bytearray(args.get('bytes', 2_000_000_000)))",
        lambda _, value: bool(value),
        group="memory",
        control_args={"bytes": 400_000_000},
    ),
    Attack(
        "two gigabytes of shared memory",
        "import mmap\ndef run(args):\n    return len(mmap.mmap(-1, args.get('bytes', 2_000_000_000)))",
        lambda _, value: bool(value),
        group="memory",
        control_args={"bytes": 400_000_000},
    ),
    Attack(
        "decompression bomb",
        _BOMB,
        lambda _, value: bool(value),
        group="memory",
        control_args={"megabytes": 400},
    ),
    Attack(
        "200 megabytes of output",
        "def run(args):\n    for _ in range(args.get('parts', 200)):\n        print('x' * 10**6)\n    return 'printed'",
        lambda _, value: value == "printed",
        group="output",
        control_args={"parts": 5},
    ),
    Attack(
        "a result of 200 megabytes",
        "def run(args):\n    return 'x' * args.get('bytes', 200_000_000)",
        lambda _, value: bool(value),
        group="output",
        control_args={"bytes": 5_000_000},
    ),
]
