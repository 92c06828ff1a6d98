"""What all updates amount to, folded as an effector would fold them, and no more forgiving."""

from fakes.slow_remote import folded_remote
from felix.calc.remote import RemoteChanges
from felix.desired import Chain, ChainKey, Desired, IPSet, KernelChain, LocalInterface, SetChange, Update
from resources.names import IfName


class Folded:
    def __init__(self) -> None:
        self.sets: dict[str, IPSet] = {}
        self.chains: dict[ChainKey, Chain] = {}
        self.kernel_chains: dict[ChainKey, KernelChain] = {}
        self.interfaces: dict[IfName, LocalInterface] = {}
        self.remote = RemoteChanges()

    def fold(self, update: Update) -> None:
        for name, change in update.sets.items():
            match change:
                case None:
                    self.sets.pop(name, None)
                case IPSet():
                    self.sets[name] = change
                case SetChange(added, removed):
                    held = self.sets[name]
                    assert not added & held.members, name
                    assert removed <= held.members, name
                    self.sets[name] = IPSet(held.type, held.version, (held.members | added) - removed)
        for key, chain in update.chains.items():
            if chain is None:
                del self.chains[key]
            else:
                assert self.chains.get(key) != chain, f"{key} is told again"
                self.chains[key] = chain
        for key, kernel_chain in update.kernel_chains.items():
            if kernel_chain is None:
                del self.kernel_chains[key]
            else:
                self.kernel_chains[key] = kernel_chain
        for name, interface in update.interfaces.items():
            if interface is None:
                del self.interfaces[IfName(name)]
            else:
                self.interfaces[IfName(name)] = interface

        self.remote = folded_remote(self.remote, update.remote)

    @property
    def desired(self) -> Desired:
        return Desired(
            sets=dict(self.sets),
            chains=dict(self.chains),
            kernel_chains=dict(self.kernel_chains),
            interfaces=dict(self.interfaces),
            remote=self.remote,
        )
