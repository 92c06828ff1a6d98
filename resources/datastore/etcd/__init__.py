"""The store on etcd, through its JSON gateway with etcd3gw: the only place that knows etcd3gw and requests.

Of etcd3gw its session, `get_url` and `post` are used; paging, watches, several endpoints, time-outs, users and typed
outcomes are here, because there they are missing or unsafe (reference ipam.md 5.3).
"""

from resources.datastore.etcd.store import EtcdStore

__all__ = ["EtcdStore"]
