"""The optimizer of a model and the settings `optimizer.*`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gptexp.config.kinds import implementation
from gptexp.config.optimizer import AdamWConfig, MuonConfig, OptimizerConfig
from gptexp.models.attention import CausalSelfAttention
from gptexp.models.classifier import HEAD
from gptexp.training.eager import EagerAdamW, EagerOptimizer
from gptexp.training.muon import BatchedMuon

Named = tuple[str, nn.Parameter]

_FUSED_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Parameters:
    """What an optimizer trains: the parameters that require a gradient.

    A kind's `implementation` is a function of these, its config and the peak learning rate; it returns the optimizer.

    named: by their names in the uncompiled model, on any device, sharded or not.
    hidden: the matrices among them between the embeddings and the output head.
    qkv: rows of the query, key and value parts of the weights of attention's c_attn.
    roles: embedding, head or scalar, for the parameters that can have a rate of their own.
    fused: whether a fused kernel should be used; False with float16 loss scaling, because a fused step unscales
        gradients after clipping.
    model: its kind, for messages.
    """

    named: list[Named]
    hidden: frozenset[nn.Parameter]
    qkv: dict[nn.Parameter, tuple[int, int, int]]
    roles: dict[nn.Parameter, str]
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
        ValueError: optimizer=muon for a model without hidden matrices; an option or a rate that changes nothing.
    """
    named = [(name, parameter) for name, parameter in named_parameters(model) if parameter.requires_grad]
    fused = _fused_exists(named) if fused is None else fused
    kind = getattr(getattr(model, "config", None), "kind", type(model).__name__)
    hidden = frozenset(hidden_matrices(model))
    parameters = Parameters(named, hidden, _qkv_heights(model), roles(model), fused, kind)
    optimizer: torch.optim.Optimizer = implementation("optimizer", config.kind)(parameters, config, lr)
    for group in optimizer.param_groups:
        group.setdefault("peak_lr", group["lr"])
    _scale_by_width(model, optimizer)
    return optimizer


def adamw(parameters: Parameters, config: AdamWConfig, lr: float) -> torch.optim.Optimizer:
    """Return AdamW."""
    return _adamw(parameters.named, config, lr, parameters)


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
    return MuonWithAdamW(_muon(groups, config, lr), _adamw(rest, config, lr, parameters))


class MuonWithAdamW(EagerOptimizer):
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


def named_parameters(model: nn.Module) -> Iterator[Named]:
    """Yield each parameter once, with its name in the uncompiled model."""
    for name, parameter in model.named_parameters():
        yield name.replace("_orig_mod.", ""), parameter


def hidden_matrices(model: nn.Module) -> set[nn.Parameter]:
    """Return the matrices between the embeddings and the output head: in a GPT those of transformer.h.

    Adapters (gptexp.models.lora) are excluded: Muon orthogonalizes the update of a whole weight, and an adapter is a
    factor of one.
    """
    apart = ("lm_head", ".lora_", HEAD)
    inner = {p for name, p in named_parameters(model) if not any(part in name for part in apart)}
    return {p for p in inner if p.ndim == 2} - embeddings(model)


def embeddings(model: nn.Module) -> set[nn.Parameter]:
    """Return the tables of tokens, positions and n-grams; a tied output matrix is one."""
    return {p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}


def roles(model: nn.Module) -> dict[nn.Parameter, str]:
    """Return the roles of the parameters that can have a rate of their own; a tied head is an embedding."""
    found = {p: "head" for name, p in named_parameters(model) if name.startswith(("lm_head.", HEAD))}
    found |= dict.fromkeys(embeddings(model), "embedding")
    return found | {p: "scalar" for p in model.parameters() if p.ndim < 2}


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
    adapters = {p for name, p in named_parameters(model) if name.endswith(".lora_A") and "lm_head" not in name}
    wide = hidden_matrices(model) | adapters
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


def _adamw(named: list[Named], config: AdamWConfig, lr: float, parameters: Parameters) -> torch.optim.AdamW:
    """Return AdamW with GPT-2's groups, weight decay for matrices and tables and none for biases and gains.

    Each group has parameters of one rate.
    """
    rates = _rates(named, config, parameters)
    groups: list[dict[str, Any]] = []
    for vectors, decay in ((False, config.weight_decay), (True, 0.0)):
        by_rate: dict[float, list[nn.Parameter]] = {}
        for _, p in named:
            if (p.ndim < 2) == vectors:
                by_rate.setdefault(rates.get(p, lr), []).append(p)
        groups += [
            {"params": params, "weight_decay": decay, "lr": rate, "peak_lr": rate} for rate, params in by_rate.items()
        ]
    betas = (config.beta1, config.beta2)
    kernel = True if parameters.fused else None  # None: torch may still take foreach
    return EagerAdamW(groups, lr=lr, betas=betas, eps=config.eps, fused=kernel)


def _rates(named: list[Named], config: AdamWConfig, parameters: Parameters) -> dict[nn.Parameter, float]:
    """Return the peak learning rates of the parameters whose role has one in the settings."""
    given = {"embedding": config.embedding_lr, "head": config.head_lr, "scalar": config.scalar_lr}
    rates: dict[nn.Parameter, float] = {}
    for role, rate in given.items():
        if rate is None:
            continue
        members = [p for _, p in named if parameters.roles.get(p) == role]
        if not members:
            raise ValueError(
                f"optimizer.{role}_lr={rate}: no {role} of model={parameters.model} is trained; "
                f"use optimizer.{role}_lr=null"
            )
        rates |= dict.fromkeys(members, rate)
    return rates


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
        "normuon_beta2": config.beta2 if config.normuon else None,
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
