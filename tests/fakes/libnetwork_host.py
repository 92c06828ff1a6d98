"""The driver of one host as a process that can die: real drivers over a store, with interfaces in memory."""

import io
import json
import time
from collections.abc import Callable, Mapping
from wsgiref.types import WSGIEnvironment

from fakes.dockerd import PluginDied
from fakes.engine_api import EngineInProcess, FakeEngine
from fakes.faulty_store import Killed
from fakes.links import FakeLinks
from fakes.plugin_client import Json, PluginError
from libnetwork import options
from libnetwork.daemon import Drivers, build
from libnetwork.network_driver import Engine
from libnetwork.server import PluginApp
from resources.datastore.store import Store
from resources.names import NodeName


class LibnetworkHost:
    """calico-libnetwork on one host. `call` is a `fakes.dockerd.Caller` that needs no socket.

    A call during which the store kills its caller (`fakes.faulty_store`) ends the process and starts the next one.
    """

    def __init__(
        self, store: Store, node: str, api: FakeEngine, *, environ: Mapping[str, str] | None = None,
        engine: Engine | None = None, now: Callable[[], float] = time.time,
    ) -> None:
        self.store, self.node, self.api = store, NodeName(node), api
        self.links = FakeLinks()
        self.settings = options.read(environ or {})
        self._engine, self._now = engine or EngineInProcess(api), now
        self.deaths = 0
        self.drivers: Drivers
        self.restart()

    def restart(self) -> None:
        """A new process: nothing is remembered."""
        self.drivers = build(self.settings, self.node, self.store, engine=self._engine, links=self.links, now=self._now)
        seconds = self.settings[options.CALL_TIMEOUT]
        self._apps = {
            role.name: PluginApp(role, call_seconds=seconds)
            for role in (self.drivers.network.role(), self.drivers.address.role())
        }

    def call(self, call: str, request: Json | None = None) -> dict[str, object]:
        body = b"" if request is None else json.dumps(request).encode()
        status = ""

        def start_response(given: str, _: object, __: object = None) -> object:
            nonlocal status
            status = given
            return None

        environ: WSGIEnvironment = {
            "PATH_INFO": f"/{call}", "REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(body),
        }
        try:
            answer = b"".join(self._apps[call.partition(".")[0]](environ, start_response))  # type: ignore[arg-type]
        except Killed:
            self.deaths += 1
            self.restart()
            raise PluginDied(call) from None
        document = json.loads(answer)
        assert isinstance(document, dict)
        if not status.startswith("200"):
            raise PluginError(call, int(status[:3]), str(document["Err"]))
        return document
