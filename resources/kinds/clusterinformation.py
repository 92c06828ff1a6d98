"""ClusterInformation: the cluster's id and the ready flag that felix waits for (reference resources.md 2.12, 1.7)."""

import msgspec

from resources.kinds.base import Column, Kind, Metadata, name_cell, wire, yes_no

NAME = "default"


class ClusterInformationSpec(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire(cluster_guid="clusterGUID")
):
    cluster_guid: str = ""
    cluster_type: str = ""
    calico_version: str = ""
    datastore_ready: bool | None = None
    """None is completed to true by initialisation; an explicit false is a lock."""
    variant: str = ""


class ClusterInformation(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: ClusterInformationSpec = ClusterInformationSpec()

    @property
    def ready(self) -> bool:
        """Whether daemons may act; only an explicit true is (reference resources.md 1.7)."""
        return self.spec.datastore_ready is True


def _name_fault(name: str) -> str | None:
    return None if name == NAME else f"the only name is '{NAME}'"


_COLUMNS: tuple[Column[ClusterInformation], ...] = (
    Column("NAME", name_cell),
    Column("CLUSTERGUID", lambda info, _: info.spec.cluster_guid),
    Column("CLUSTERTYPE", lambda info, _: info.spec.cluster_type),
    Column("CALICOVERSION", lambda info, _: info.spec.calico_version),
    Column(
        "DATASTOREREADY",
        lambda info, _: "<nil>" if info.spec.datastore_ready is None else yes_no(info.spec.datastore_ready),
    ),
)

KIND: Kind[ClusterInformation] = Kind(
    name="ClusterInformation",
    plural="clusterinformations",
    type=ClusterInformation,
    aliases=("clusterinformation", "clusterinformations", "clusterinfo", "clusterinfos"),
    read_only=True,
    name_fault=_name_fault,
    columns=_COLUMNS,
    wide=_COLUMNS,
)
