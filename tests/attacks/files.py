"""Attacks on files: read the host's, write outside the folder, fill the disk."""

from tests.attacks.model import Attack

_RUN = "import os\ndef run(args):\n    "


def _leak(name: str, body: str, **more: object) -> Attack:
    return Attack(name, _RUN + body, lambda aim, value: aim.has_leaked(value), group="files", **more)  # type: ignore[arg-type]


def _plant(name: str, body: str) -> Attack:
    return Attack(name, _RUN + body, lambda aim, _: aim.is_planted, group="files")


def _fill(name: str, body: str, **small: int) -> Attack:
    return Attack(name, _RUN + body, lambda _, value: bool(value), group="disk", control_args=small)


_READ_ALL = """found = {}
    for path in %s:
        try:
            found[path] = open(path, errors="replace").read()
        except OSError as error:
            found[path] = str(error)
    return found"""

ATTACKS = [
    Attack(
        "read /etc/passwd",
        _RUN + "return open('/etc/passwd').read()",
        lambda _, value: "root:" in str(value),
        group="files",
    ),
    _leak("read a secret file", "return open(args['secret']).read()"),
    _leak("environment", "return dict(os.environ)"),
    _leak(
        "environment in /proc",
        _READ_ALL
        % "[f'/proc/{pid}/environ' for pid in ('self', 1, os.getppid(), args['host'], args['victim'], 'thread-self')]",
    ),
    Attack(
        "mounts in /proc",
        _RUN
        + _READ_ALL
        % "['/proc/self/mountinfo', '/proc/mounts', '/proc/self/maps', '/proc/cpuinfo', '/sys/kernel/mm/ksm/run']",
        lambda _, value: (
            any("denied" not in text and "permitted" not in text and "No such" not in text for text in value.values())
            if value
            else False
        ),
        group="files",
    ),
    _leak("symlink out", "os.symlink(args['secret'], 'link')\n    return open('link').read()"),
    _leak("hard link out", "os.link(args['secret'], 'hard')\n    return open('hard').read()"),
    _leak("path with ..", "return open('../' * 20 + args['secret']).read()"),
    _leak("descriptor of the root", "return open(os.open('/', os.O_PATH) and args['secret']).read()"),
    _plant("write outside", "open(args['planted'], 'w').write('x')"),
    _plant("rename out", "open('x', 'w').write('x')\n    os.rename('x', args['planted'])"),
    _plant("link out", "open('x', 'w').write('x')\n    os.link('x', args['planted'])"),
    _plant("make a pipe outside", "os.mkfifo(args['planted'])"),
    Attack(
        "change a file of the host",
        _RUN + "os.truncate(args['secret'], 0)",
        lambda aim, _: (aim.folder / "secret").read_text() != aim.token,
        group="files",
    ),
    Attack(
        "change the mode of a file of the host",
        _RUN + "os.chmod(args['secret'], 0o600)",
        lambda aim, _: (aim.folder / "secret").stat().st_mode & 0o777 == 0o600,
        group="files",
    ),
    _fill(
        "a gigabyte in files",
        """for number in range(args.get("files", 100)):
        with open(f"f{number}", "wb") as file:
            file.write(bytes(10_000_000))
    return True""",
        files=4,
    ),
    _fill(
        "a gigabyte in files that are removed and held open",
        """held = []
    for number in range(args.get("files", 25)):
        file = open("f", "wb")
        os.unlink("f")
        for _ in range(args.get("parts", 40)):
            file.write(bytes(1_000_000))
        held.append(file)
    return True""",
        files=2,
        parts=10,
    ),
    _fill(
        "a file larger than the folder",
        """with open("f", "wb") as file:
        file.seek(100_000_000)
        file.write(b"x")
    return True""",
    ),
    _fill(
        "many small files",
        """for number in range(args.get("files", 50_000)):
        open(f"f{number}", "w").close()
    return True""",
        files=1_000,
    ),
    _fill(
        "many folders in folders",
        """for number in range(args.get("depth", 3_000)):
        os.mkdir("d")
        os.chdir("d")
    import time
    time.sleep(0.2)
    return True""",
        depth=100,
    ),
    _fill("an unnamed file", "return os.open('.', os.O_TMPFILE | os.O_RDWR) > 0"),
]
