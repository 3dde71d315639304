"""Attacks on processes: start programs, multiply, outlive the call, harm others."""

from typing import Any

from tests.attacks.model import Attack, Target, processes_with

_RUN = "import os\ndef run(args):\n    "


def _plant(name: str, body: str) -> Attack:
    return Attack(name, _RUN + body, lambda aim, _: aim.is_planted, group="programs")


def _victim(name: str, body: str, **more: Any) -> Attack:
    return Attack(name, _RUN + body, lambda aim, _: not aim.is_victim_alive, group="signals", **more)


def _has_daemon(aim: Target, value: Any) -> bool:
    """Outside its command line tells; inside, the test itself compares the jail's processes."""
    return bool(value) or bool(processes_with(f"outside-{aim.token}"))


ATTACKS = [
    _plant("exec a shell", "os.execv('/bin/sh', ['sh', '-c', 'touch ' + args['planted']])"),
    _plant("spawn a shell", "os.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', 'touch ' + args['planted']], {}), 0)"),
    _plant("os.system", "os.system('touch ' + args['planted'])"),
    _plant(
        "os.system by way of __subclasses__",
        """for kind in ().__class__.__base__.__subclasses__():
        found = getattr(getattr(kind, "__init__", None), "__globals__", {}).get("system")
        if found:
            return found("touch " + args["planted"])""",
    ),
    Attack(
        "fork bomb",
        _RUN
        + """forked = 0
    for _ in range(args.get("forks", 400)):
        try:
            pid = os.fork()
        except OSError:
            continue
        if pid == 0:
            import time
            time.sleep(args.get("nap", 30))
            os._exit(0)
        forked += 1
    return forked""",
        lambda _, value: bool(value),
        group="multiply",
        control_args={"forks": 5, "nap": 0.5},
    ),
    Attack(
        "thread bomb",
        """import threading, time
def run(args):
    threading.stack_size(32_768)
    started = 0
    for _ in range(args.get("threads", 5_000)):
        threading.Thread(target=time.sleep, args=(args.get("nap", 30),), daemon=True).start()
        started += 1
    time.sleep(0.2)
    return started""",
        lambda _, value: (value or 0) > 64,
        group="multiply",
        control_args={"threads": 100, "nap": 0.5},
    ),
    Attack(
        "daemon that outlives the call",
        _RUN
        + """if os.fork():
        return True
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in range(1024):
        try:
            os.close(number)
        except OSError:
            pass
    import time
    time.sleep(30)""",
        _has_daemon,
        group="multiply",
    ),
    _victim("kill a process", "import signal\n    os.kill(args['victim'], signal.SIGKILL)"),
    _victim(
        "kill its group",
        "import signal\n    os.killpg(os.getpgid(args['victim']), signal.SIGKILL)",
        is_control=False,  # the group of the tests themselves
    ),
    _victim(
        "kill everything",
        "import signal\n    os.kill(-1, signal.SIGKILL)",
        is_control=False,  # the control would end this machine
    ),
    _victim(
        "kill it by a descriptor",
        "import signal\n    signal.pidfd_send_signal(os.pidfd_open(args['victim']), signal.SIGKILL)",
    ),
    _victim(
        "have the kernel signal the owner of a pipe",
        """import fcntl, signal, time
    readable, writable = os.pipe()
    fcntl.fcntl(readable, fcntl.F_SETOWN, args["victim"])
    fcntl.fcntl(readable, 10, signal.SIGKILL)
    fcntl.fcntl(readable, fcntl.F_SETFL, os.O_ASYNC)
    os.write(writable, b"x")
    time.sleep(0.2)""",
    ),
    Attack(
        "kill the parent",
        _RUN + "import signal\n    os.kill(os.getppid(), 0)\n    return 'reached'",
        lambda _, value: value == "reached",
        group="signals",
    ),
    Attack(
        "raise its own limits",
        "import resource\ndef run(args):\n    resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n    return 'set'",
        lambda _, value: value == "set",
        group="signals",
    ),
]
