"""The HTTP API of the supervisor, over a Unix socket."""

from trainerd.supervisor.api.app import create_app
from trainerd.supervisor.api.server import serve
from trainerd.supervisor.api.standby_answers import snapshot

__all__ = ["create_app", "serve", "snapshot"]
