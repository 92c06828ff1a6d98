"""ClusterInformation: the cluster's id and the ready flag that felix waits for (reference resources.md 2.12, 1.7)."""

import msgspec

from resources.kinds.base import Kind, Metadata


class ClusterInformationSpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={
        "cluster_guid": "clusterGUID", "cluster_type": "clusterType", "calico_version": "calicoVersion",
        "datastore_ready": "datastoreReady",
    },
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


KIND = Kind(name="ClusterInformation", plural="clusterinformations", type=ClusterInformation,
            aliases=("clusterinformation", "clusterinformations", "clusterinfo", "clusterinfos"), read_only=True)
