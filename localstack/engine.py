"""The local AWS engine: moto's SQS and Step Functions (its real ASL interpreter) behind our gateway, in one process.

It keeps its state in memory and makes queues and state machines anew at each start; what was under way is found again
by the sweeps. Run it as ``python -m localstack.engine PORT FUNCTIONS_URL``.
"""

import os
import sys
import threading
from enum import StrEnum
from types import ModuleType
from typing import TYPE_CHECKING

from localstack.gateway import Gateway, Target
from localstack.process import LOOPBACK
from localstack.provision import provision
from localstack.wiring import Wiring, read_wiring
from shared.cloud.aws import Aws
from shared.observability import configure_logging
from shared.settings import current_settings

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer


def make_engine(port: int, functions_url: str, wiring: Wiring) -> "tuple[BaseWSGIServer, Gateway]":
    """The server, bound and accepting but not serving yet, and its gateway.

    Only one engine can live in a process: moto's interpreter calls back to the port in MOTO_PORT.
    """
    os.environ["MOTO_PORT"] = str(port)
    _leave_out_batch()
    from moto.core.config import default_user_config
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    class QuietHandler(MotoRequestHandler):
        """Without a log line for each request."""

        protocol_version = "HTTP/1.1"

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Say nothing."""

    default_user_config["stepfunctions"]["execute_state_machine"] = True
    targets = {
        function.name: Target(f"{functions_url}/{function.folder}", function.timeout_s) for function in wiring.functions
    }
    gateway = Gateway(DomainDispatcherApplication(create_backend_app), targets)
    server = make_server(LOOPBACK, port, gateway, threaded=True, request_handler=QuietHandler)
    return server, gateway


class _JobStatus(StrEnum):
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


def _leave_out_batch() -> None:
    """Spare the interpreter its import of AWS Batch and, with it, all of EC2: 0.9 s of a start for this one enum."""
    utils = ModuleType("moto.batch.utils")
    utils.__dict__["JobStatus"] = _JobStatus
    sys.modules.setdefault(utils.__name__, utils)


def main() -> None:
    """Serve until killed."""
    port, functions_url = int(sys.argv[1]), sys.argv[2]
    settings = current_settings()
    configure_logging(settings.log_level, "engine")
    wiring = read_wiring()
    server, gateway = make_engine(port, functions_url, wiring)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    aws = Aws(settings.aws_region, f"http://{LOOPBACK}:{port}")
    provision(wiring, aws, settings.aws_region)
    gateway.ready = True
    threading.Event().wait()


if __name__ == "__main__":
    main()
