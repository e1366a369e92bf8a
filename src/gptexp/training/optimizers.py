"""The optimizer of a model and the settings `optimizer.*`, and its state as plain data by parameter name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from gptexp.config.kinds import implementation
from gptexp.config.optimizer import AdamWConfig, MuonConfig, OptimizerConfig, Orthogonalization
from gptexp.models.attention import CausalSelfAttention
from gptexp.models.classifier import HEAD
from gptexp.training.muon import ROW_AVERAGE, BatchedMuon

Named = tuple[str, nn.Parameter]
State = dict[str, dict[str, Any]]  # {parameter name: {"step": …, "exp_avg": …}}

_FUSED_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Parameters:
    """What an optimizer trains: the parameters that require a gradient.

    A kind's `implementation` is a function of these, its config and the peak learning rate; it returns the optimizer.

    named: by their names in the uncompiled model, on any device, sharded or not. hidden: the matrices among them
    between the embeddings and the output head. qkv: rows of the query, key and value parts of each attn.c_attn.weight
    among those. fused: whether a fused kernel should be used; False with float16 loss
    scaling, because a fused step unscales gradients after clipping. model: its kind, for messages.
    """

    named: list[Named]
    hidden: frozenset[nn.Parameter]
    qkv: dict[nn.Parameter, tuple[int, int, int]]
    fused: bool
    model: str


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, lr: float, *, fused: bool | None = None
) -> torch.optim.Optimizer:
    """Return the optimizer of `optimizer.kind` for the parameters that require a gradient.

    Each group has `peak_lr`, the rate that the schedule multiplies; it is the group's `lr` if the kind sets no other.

    Args:
        model: one of gptexp.models, on any device, sharded or not.
        config: settings of the optimizer.
        lr: peak learning rate; `config.lr` may be null and is not read.
        fused: use fused kernels; None uses them where they exist. Must be False with float16 loss scaling.

    Raises:
        ValueError: optimizer=muon for a model without hidden matrices.
    """
    named = [(name, parameter) for name, parameter in _named_parameters(model) if parameter.requires_grad]
    fused = _fused_exists(named) if fused is None else fused
    kind = getattr(getattr(model, "config", None), "kind", type(model).__name__)
    parameters = Parameters(named, frozenset(_hidden_matrices(model)), _qkv_heights(model), fused, kind)
    optimizer: torch.optim.Optimizer = implementation("optimizer", config.kind)(parameters, config, lr)
    for group in optimizer.param_groups:
        group.setdefault("peak_lr", group["lr"])
    _scale_by_width(model, optimizer)
    return optimizer


def adamw(parameters: Parameters, config: AdamWConfig, lr: float) -> torch.optim.Optimizer:
    """Return AdamW."""
    return _adamw(parameters.named, config, lr, parameters.fused)


def muon_with_adamw(parameters: Parameters, config: MuonConfig, lr: float) -> torch.optim.Optimizer:
    """Return Muon for the hidden matrices and AdamW for the other parameters."""
    hidden = [parameter for _, parameter in parameters.named if parameter in parameters.hidden]
    if not hidden:
        raise ValueError(
            f"optimizer=muon: model={parameters.model} has no hidden matrices, and Muon trains nothing else; "
            "use optimizer=adamw"
        )
    if config.split_qkv and not parameters.qkv:
        raise ValueError(
            f"optimizer.split_qkv=true: model={parameters.model} has no attention; use optimizer.split_qkv=false"
        )
    groups = _muon_groups(hidden, parameters.qkv if config.split_qkv else {})
    rest = [(name, parameter) for name, parameter in parameters.named if parameter not in parameters.hidden]
    return MuonWithAdamW(_muon(groups, config, lr), _adamw(rest, config, lr, parameters.fused))


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers as one: one list of groups, one state, one step.

    Both parts share this optimizer's group dictionaries and state, so a learning rate set here applies to them,
    and `state_dict` and `load_state_dict` work as in any optimizer.
    """

    def __init__(self, muon: BatchedMuon, adamw: torch.optim.AdamW) -> None:
        self.muon, self.adamw = muon, adamw
        super().__init__(muon.param_groups + adamw.param_groups, defaults={})
        self._share()

    def _share(self) -> None:
        """Point both parts at this optimizer's groups and state."""
        split = len(self.muon.param_groups)
        self.muon.param_groups, self.adamw.param_groups = self.param_groups[:split], self.param_groups[split:]
        self.muon.state = self.adamw.state = self.state

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "muon": self.muon, "adamw": self.adamw}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # load_state_dict calls this too, with new groups and a new state
        self._share()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        parts = (*self.muon.param_groups, *self.adamw.param_groups)
        if not any(param_group is group for group in parts):  # neither part would update it
            raise ValueError("MuonWithAdamW does not accept parameter groups after its construction")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()
        self.adamw.step()
        return loss


def named_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Return the optimizer's state as plain data: whole tensors on the CPU, by parameter name.

    A parameter without a step has an empty dictionary. Group settings are not included: they follow from the
    config. With sharded parameters this is a collective: all ranks must call it, and all get the whole state.
    """
    return {
        name: {key: _whole(value) for key, value in optimizer.state.get(parameter, {}).items()}
        for name, parameter, _ in _managed(model, optimizer)
    }


def load_named_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load what `named_optimizer_state` returned; order of groups and sharding may differ.

    Raises:
        ValueError: parameters are missing or unknown, or the state of AdamW or Muon has other keys or shapes. The
            optimizer is unchanged then.
    """
    managed = list(_managed(model, optimizer))
    _require_same_names({name for name, _, _ in managed}, set(state))
    if isinstance(optimizer, (torch.optim.AdamW, MuonWithAdamW)):  # of another optimizer, any state may be right
        for name, parameter, group in managed:
            _require_fitting(name, parameter, group, state[name])
    for name, parameter, group in managed:
        placed = {key: _placed(key, value, parameter, group) for key, value in state[name].items()}
        if placed:
            optimizer.state[parameter] = placed
        else:
            optimizer.state.pop(parameter, None)


def _named_parameters(model: nn.Module) -> Iterator[Named]:
    """Yield each parameter once, with its name in the uncompiled model."""
    for name, parameter in model.named_parameters():
        yield name.replace("_orig_mod.", ""), parameter


def _hidden_matrices(model: nn.Module) -> set[nn.Parameter]:
    """Return the matrices between the embeddings and the output head: in a GPT those of transformer.h.

    Adapters (gptexp.models.lora) are excluded: Muon orthogonalizes the update of a whole weight, and an adapter is a
    factor of one. The gates of value embeddings are excluded too: they have few columns and start at 0, where an
    orthogonal update is as large as any other.
    """
    outer = {p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    apart = ("lm_head", ".lora_", ".ve_gate.", HEAD)
    inner = {p for name, p in _named_parameters(model) if not any(part in name for part in apart)}
    return {p for p in inner if p.ndim == 2} - outer


def _qkv_heights(model: nn.Module) -> dict[nn.Parameter, tuple[int, int, int]]:
    """Return the rows of queries, keys and values in the weight of each c_attn."""
    heights: dict[nn.Parameter, tuple[int, int, int]] = {}
    for layer in model.modules():
        if isinstance(layer, CausalSelfAttention):
            queries, keys = layer.n_head * layer.head_dim, layer.n_kv_head * layer.head_dim
            heights[layer.get_parameter("c_attn.weight")] = (queries, keys, keys)
    return heights


def _scale_by_width(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give the matrices with n_embd inputs the rates of muP, in groups of their own; lr * weight_decay stays.

    r = n_embd / base_width. All entries of AdamW's update can have the sign that changes an output most, so that n_embd
    inputs change it n_embd times as much: the rate is divided by r (arXiv 2203.03466, table 8). Muon's update has
    singular values of 0.2 * sqrt(max(A, B)), which grow as sqrt(r), and a change of the outputs of constant size needs
    constant singular values (arXiv 2310.17813): the rate is divided by sqrt(r). Adapters follow arXiv 2402.12354: the
    rate of A is divided by r, that of B is not.
    """
    ratio = getattr(getattr(model, "config", None), "width_ratio", 1.0)
    if ratio == 1:
        return
    adapters = {p for name, p in _named_parameters(model) if name.endswith(".lora_A") and "lm_head" not in name}
    wide = _hidden_matrices(model) | adapters
    for group in list(optimizer.param_groups):
        apart = [p for p in group["params"] if p in wide]
        if not apart:
            continue
        if len(apart) < len(group["params"]):
            group["params"] = [p for p in group["params"] if p not in wide]
            optimizer.add_param_group({**group, "params": apart})
            group = optimizer.param_groups[-1]
        factor = 1 / ratio if "betas" in group else ratio**-0.5
        group["lr"], group["peak_lr"] = group["lr"] * factor, group["peak_lr"] * factor
        group["weight_decay"] /= factor


def _fused_exists(named: Iterable[Named]) -> bool:
    return all(p.device.type in _FUSED_DEVICES and p.is_floating_point() for _, p in named)


def _adamw(named: list[Named], config: AdamWConfig, lr: float, fused: bool) -> torch.optim.AdamW:
    """Return AdamW with GPT-2's groups: weight decay for matrices and tables, none for biases and gains."""
    matrices = [p for _, p in named if p.ndim >= 2]
    vectors = [p for _, p in named if p.ndim < 2]
    groups = [
        {"params": params, "weight_decay": decay, "peak_lr": lr}
        for params, decay in ((matrices, config.weight_decay), (vectors, 0.0))
        if params
    ]
    betas, kernel = (config.beta1, config.beta2), True if fused else None  # None: torch may still take foreach
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=config.eps, fused=kernel)


def _muon_groups(hidden: list[nn.Parameter], heights: Mapping[nn.Parameter, tuple[int, ...]]) -> list[dict[str, Any]]:
    """Return the hidden matrices in groups: those that are updated whole, and those in parts of given heights."""
    groups: dict[tuple[int, ...] | None, list[nn.Parameter]] = {}
    for parameter in hidden:
        groups.setdefault(heights.get(parameter), []).append(parameter)
    return [{"params": group, **({"heights": parts} if parts else {})} for parts, group in groups.items()]


def _muon(groups: list[dict[str, Any]], config: MuonConfig, lr: float) -> BatchedMuon:
    """Return Muon with updates as large as AdamW's (arXiv 2502.16982, section 2.2), so that both use one rate."""
    peak = lr if config.muon_lr is None else config.muon_lr
    options = {
        "polar_express": config.orthogonalization is Orthogonalization.polar_express,
        "normuon_beta2": config.beta2 if config.normuon else None,
        "cautious": config.cautious,
    }
    return BatchedMuon(
        [{**group, **options, "peak_lr": peak} for group in groups],
        lr=peak,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        nesterov=config.nesterov,
        ns_steps=config.ns_steps,
        adjust_lr_fn="match_rms_adamw",  # recorded in torch's settings; BatchedMuon always does this
    )


def _managed(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter, dict[str, Any]]]:
    """Yield name, parameter and group of all trained parameters, in the order of the model."""
    group_of = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in _named_parameters(model):
        if parameter in group_of:
            yield name, parameter, group_of[parameter]


def _whole(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    whole = value.full_tensor() if isinstance(value, DTensor) else value
    return whole.detach().to("cpu", copy=True)


def _placed(key: str, value: Any, parameter: nn.Parameter, group: dict[str, Any]) -> Any:
    """Return a copy of the value on the device and with the sharding that the optimizer needs."""
    if not isinstance(value, Tensor):
        return value
    if key == "step":  # on the CPU unless the kernel reads it
        on_device = group.get("fused") or group.get("capturable")
        return value.to(parameter.device if on_device else "cpu", copy=True)
    value = value.to(parameter.device, copy=True)
    if isinstance(parameter.data, DTensor) and value.shape == parameter.shape:
        # Every process has the whole value; nothing is sent.
        return distribute_tensor(value, parameter.data.device_mesh, parameter.data.placements, src_data_rank=None)
    return value


def _require_same_names(expected: set[str], found: set[str]) -> None:
    missing, unknown = sorted(expected - found), sorted(found - expected)
    if missing or unknown:
        raise ValueError(
            "the optimizer state belongs to another model: "
            + "; ".join(
                f"{word} {', '.join(names)}" for word, names in (("missing", missing), ("unknown", unknown)) if names
            )
        )


def _require_fitting(name: str, parameter: nn.Parameter, group: dict[str, Any], state: Mapping[str, Any]) -> None:
    rows = {ROW_AVERAGE} if group.get("normuon_beta2") is not None else set()
    keys = {"step", "exp_avg", "exp_avg_sq"} if "betas" in group else {"momentum_buffer", *rows}
    if state and set(state) != keys:
        raise ValueError(
            f"the optimizer state of {name} has {', '.join(sorted(state))}; expected: {', '.join(sorted(keys))}"
        )
    for key, value in state.items():
        shape = parameter.shape[:1] if key == ROW_AVERAGE else parameter.shape
        if key != "step" and value.shape != shape:
            raise ValueError(
                f"the optimizer state {key} of {name} has shape {tuple(value.shape)}, expected: {tuple(shape)}"
            )
