"""`calico-node agent`: keeps what belongs to this host in the store and is nobody else's job: its tunnel addresses."""
