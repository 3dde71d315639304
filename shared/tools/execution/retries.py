"""When a tool that failed is run again. Pure functions."""

from shared.tools.model import Tool, ToolFailed

MAX_ATTEMPTS = 3
BASE_S = 0.2
CAP_S = 5.0


def wait_before_next(tool: Tool, failure: ToolFailed, attempt: int, left_s: float, jitter: float) -> float | None:
    """Seconds to wait before attempt ``attempt + 1``; None when there is to be none.

    Only a tool that may run again does, at most ``MAX_ATTEMPTS`` times and while its time lasts. Full jitter
    (``jitter`` in 0..1): Exponential Backoff And Jitter, AWS Architecture Blog, 2015. A wait that the other side asked
    for is honoured or, if it is longer than what is left, given up on.
    """
    if not (tool.may_run_again and failure.is_transient) or attempt >= MAX_ATTEMPTS:
        return None
    wait = jitter * min(CAP_S, BASE_S * 2.0**attempt)
    if failure.retry_after_s is not None:
        wait += failure.retry_after_s
    return wait if wait < left_s else None
