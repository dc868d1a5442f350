"""The command line of the server."""

from __future__ import annotations

import argparse
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from optim.common.errors import UserError, require_count
from optim.common.interrupts import INTERRUPTED
from optim.common.screen import with_stderr
from optim.measure.device import cores
from optim.predict import Classifier

ENDING_S = 5  # that requests under way have to end in, half of what `docker stop` grants before it kills


def main(arguments: list[str] | None = None) -> int:
    """Serves until Ctrl-C; 2 and one line on stderr for a bundle, an address or a package that is not there."""
    parser = argparse.ArgumentParser(
        prog="python -m optim.serve",
        description="Answers over HTTP with the bundle of a run: POST /classify, GET /health, and a page to try it on.",
        epilog='Try: curl -d \'{"text": "a charming film"}\' http://127.0.0.1:8000/classify',
    )
    parser.add_argument("bundle", type=Path, help="results/<run_id> or its bundle")
    host = "address to listen on (default: this machine alone)"
    parser.add_argument("--host", type=_address, default="127.0.0.1", help=host)
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument("--workers", type=int, default=cores(), help="interpreters side by side (default: the cores)")
    parser.add_argument("--queue", type=int, default=1024, help="sentences that may wait (default: 1024)")
    options = parser.parse_args(arguments)
    with_stderr()
    try:
        serve(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder that may not be read
        print(f"error: {error.filename or 'the bundle'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while it loads
        return INTERRUPTED
    return 0


def _address(word: str) -> str:
    """A host as sockets take it. The one of IPv6 has brackets in a URL, as this program prints it too."""
    return word[1:-1] if word.startswith("[") and word.endswith("]") else word


def serve(options: argparse.Namespace) -> None:
    """Loads one classifier for each worker, and answers until it is stopped."""
    if lacking := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise UserError(
            f"{' and '.join(lacking)} not installed: the server needs the extra `serve`. "
            'pip install "distilbert-optim[serve]", or ".[serve]" in a checkout.'
        )
    import uvicorn

    from optim.serve.app import application

    for name in ("workers", "queue"):
        require_count(f"--{name}", getattr(options, name))
    classifiers = [Classifier(options.bundle) for _ in range(options.workers)]
    listening = _listening(options.host, options.port)
    named = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{named}:{listening.getsockname()[1]}"
    print(
        f"{options.bundle} answers at {address}, {options.workers} workers. Ctrl-C ends it.",
        file=sys.stderr,
        flush=True,
    )
    app = application(classifiers, queue=options.queue)
    # Without a bound a client that never sends the rest of its request would keep the server from ending.
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, proxy_headers=False, timeout_graceful_shutdown=ENDING_S
    )
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):  # raised once more after the server has ended in order
        server.run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """A socket on that address. Raises UserError where it can't be had.

    It says that it is TCP: asyncio lets only such sockets send at once. Others hold the end of an answer back until
    its start is acknowledged, 40 ms on a connection that is kept.
    """
    if not host.strip():  # as of "$HOST" that is not set: sockets take it for every address of the machine
        raise UserError("--host must name an address, got ''; 0.0.0.0 are all of this machine.")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.create_server((host, port), family=family, backlog=2048)
        return socket.socket(made.family, made.type, socket.IPPROTO_TCP, fileno=made.detach())
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--host {host} --port {port} can't be listened on ({error}). Choose another --port or --host."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
