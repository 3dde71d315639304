"""What every model that onnxruntime runs needs: one build per machine, one careful session."""

import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Any

_BUILD_TIMEOUT_S = 300.0


def open_session(file: Path) -> Any:
    """One thread and no spinning: on a busy machine more threads are slower, not faster."""
    # numpy first and whole: onnxruntime enters it by a back door, and when another thread is importing it meanwhile,
    # both imports fail, for good ("cannot load module more than once per process").
    import numpy  # noqa: F401
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def build_once(built: Path, module: str) -> None:
    """Let one process of this machine run ``module``, which makes ``built``, in a child that gives its memory back.

    Raises RuntimeError when that fails, OSError when the folder cannot be written.
    """
    if built.exists():
        return
    built.parent.mkdir(parents=True, exist_ok=True)
    with (built.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if built.exists():
            return
        command = [sys.executable, "-m", module, str(built.parent)]
        done = subprocess.run(command, capture_output=True, timeout=_BUILD_TIMEOUT_S)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"the embedding model could not be built: {done.stderr.decode(errors='replace')[-500:]}")
