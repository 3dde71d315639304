"""Programs that try to get out of a sandbox, and how to see whether one did."""

from tests.attacks import files, memory, network, processes, syscalls
from tests.attacks.model import Attack

ATTACKS: list[Attack] = [
    *files.ATTACKS,
    *network.ATTACKS,
    *processes.ATTACKS,
    *memory.ATTACKS,
    *syscalls.ATTACKS,
]
