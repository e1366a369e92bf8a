"""`pl`: Lightning, without the packages that its metrics import wherever they happen to be installed.

lightning.pytorch imports torchmetrics, which imports matplotlib, scipy and transformers to offer plots and
metrics that no run of gptexp takes. With them a start takes several seconds longer, and with
the extra `compare` two of the three are installed. So every module takes `pl` from here.
"""

from __future__ import annotations

from unittest.mock import patch

from lightning_utilities.core import imports
from lightning_utilities.core.imports import RequirementCache

LEFT_OUT = ("matplotlib", "scipy", "transformers")


class _Requirement(RequirementCache):
    """Says of what is left out that it isn't there."""

    def _check_available(self) -> None:
        if (self.requirement or "").startswith(LEFT_OUT):
            self.available, self.message = False, f"{self.requirement} is left out by gptexp, for a quick start"
        super()._check_available()


def _available(package: str) -> bool:
    return package not in LEFT_OUT and _package_available(package)


_package_available = imports.package_available
with patch.multiple(imports, RequirementCache=_Requirement, package_available=_available):
    import lightning.pytorch as pl
    from lightning.pytorch.plugins import environments

__all__ = ["environments", "pl"]
