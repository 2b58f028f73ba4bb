"""What an artifact was made with: hardware and versions of packages.

They are no part of an artifact: the same settings and inputs are the same artifact on any machine.
"""

from pydantic import BaseModel, ConfigDict

from pvar.digest import digest


class Machine(BaseModel):
    """A machine that made an artifact, or a part of it. It has no name and no address."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    hardware: str
    """Such as `2 × NVIDIA H100 80GB HBM3, 16 CPUs (AMD EPYC 9354), 128 GB`."""
    versions: dict[str, str]
    """By name of the package, as installed; Python's too."""

    @property
    def key(self) -> str:
        """Its place below an artifact (`stage/digest/`). Equal machines have the same."""
        return f"{MACHINES}/{digest(self.model_dump())}.json"


MACHINES = "machines"
"""Folder of the machines below an artifact."""
