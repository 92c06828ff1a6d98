"""The file with the MTU of workloads, in memory."""

from collections.abc import Mapping

from kernel.errors import DataplaneError


class FakeMtuFile:
    """Implements `felix.dataplane.sizes.MtuTeller`: keeps what it is told, or fails as it is told to."""

    def __init__(self) -> None:
        self.told: int | None = None
        self.failure: DataplaneError | None = None

    def tell(self, mtu: int) -> Mapping[str, DataplaneError]:
        if self.failure is not None:
            raise self.failure
        self.told = mtu
        return {}
