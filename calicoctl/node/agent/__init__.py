"""`calico-node agent`: keeps what is this host's in the store and nobody else's job: tunnel addresses, spare blocks."""
