"""`trainer=fsdp`: the model's blocks sharded over devices with torch's fully_shard (FSDP2)."""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from gptexp.machine.lightning import pl


class ShardedStrategy(pl.strategies.ModelParallelStrategy):
    """All devices form one data-parallel mesh; Lightning's `auto` would make it tensor-parallel."""

    def __init__(self, world_size: int) -> None:
        super().__init__(data_parallel_size=world_size, tensor_parallel_size=1, save_distributed_checkpoint=False)


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard each transformer block, then what remains, in place.

    The inner network is sharded, not the LightningModule: the hooks that gather weights sit on
    `forward`, which `training_step` calls on the network.
    """
    for block in getattr(getattr(model, "transformer", None), "h", []):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
