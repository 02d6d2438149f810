"""The devices that programs are compiled for; none of them needs to be present.

XLA's GPU compiler takes a description of the device instead (`h100.txtpb`), a TPU's compiler the name of a topology.
"""

import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

TargetName = Literal["h100", "v5e", "v5p", "v6e"]


class Target(NamedTuple):
    """A device, and the packages that compile for it."""

    title: str
    platform: Literal["cuda", "tpu"]
    topology: str
    compilers: tuple[str, ...]  # the packages, as pip calls them


TARGETS: dict[TargetName, Target] = {
    "h100": Target("H100", "cuda", "1x1x1", ("jax-cuda13-plugin", "nvidia-cudnn-cu13")),
    "v5e": Target("TPU v5e", "tpu", "v5e:2x2", ("libtpu",)),
    "v5p": Target("TPU v5p", "tpu", "v5p:2x2x1", ("libtpu",)),
    "v6e": Target("TPU v6e", "tpu", "v6e:2x2", ("libtpu",)),
}


def compilers(name: TargetName) -> dict[str, str]:
    """The versions of the packages that compile for a target; empty if one of them is missing."""
    try:
        return {package: version(package) for package in TARGETS[name].compilers}
    except PackageNotFoundError:
        return {}


def without_devices() -> None:
    """Keep JAX from looking for a GPU, and libtpu for a TPU; to be called before JAX starts."""
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # ask no server what this machine is
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # there is no chip that processes must not share
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    jax.config.update("jax_platforms", "cpu")


@cache
def place(name: TargetName) -> SingleDeviceSharding:
    """Arrays on one device of a target."""
    platform, topology = TARGETS[name].platform, TARGETS[name].topology
    if platform == "cuda":
        config = Path(__file__).with_name(f"{name}.txtpb").read_text()
        found = topologies.get_topology_desc(platform=platform, target_config=config, topology=topology)
    else:
        found = topologies.get_topology_desc(topology, platform)
    return SingleDeviceSharding(found.devices[0])
