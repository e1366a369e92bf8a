"""The learning rate is a pure function of the step; the expected values are computed by hand."""

from __future__ import annotations

import pytest

from gptexp.config.schedule import lr_multiplier, warmup_steps
from gptexp.config.training import CosineConfig, LinearConfig, ScheduleConfig, WSDConfig

# Four steps of warm-up (1/5 … 4/5), the peak at step 4, and eight steps of decay, complete at step 12.
COSINE = {0: 0.2, 3: 0.8, 4: 1.0, 6: 0.1 + 0.9 * (2 + 2**0.5) / 4, 8: 0.55, 10: 0.1 + 0.9 * (2 - 2**0.5) / 4, 12: 0.1}
TABLE = [
    (ScheduleConfig(warmup_steps=4), {0: 0.2, 1: 0.4, 2: 0.6, 3: 0.8, 4: 1.0, 11: 1.0, 99: 1.0}),
    (ScheduleConfig(warmup_steps=0), {0: 1.0, 11: 1.0}),
    (CosineConfig(warmup_steps=4), COSINE),
    (
        LinearConfig(warmup_steps=4, min_lr_ratio=0.2),
        {0: 0.2, 3: 0.8, 4: 1.0, 6: 0.8, 8: 0.6, 11: 0.3, 12: 0.2, 99: 0.2},
    ),
    (LinearConfig(warmup_steps=4, min_lr_ratio=0.0), {4: 1.0, 11: 0.125, 12: 0.0}),
    (WSDConfig(warmup_steps=4, decay_fraction=1 / 3), {3: 0.8, 4: 1.0, 8: 1.0, 9: 0.75, 10: 0.5, 11: 0.25, 12: 0.0}),
    (WSDConfig(warmup_steps=4, decay_fraction=1.0), {3: 0.8, 4: 1.0, 8: 0.5, 11: 0.125}),
    (LinearConfig(warmup_steps=12), {0: 1 / 13, 11: 12 / 13, 12: 0.1}),
]


@pytest.mark.parametrize(("config", "expected"), TABLE)
def test_the_multiplier_equals_a_table_computed_by_hand(config: ScheduleConfig, expected: dict[int, float]) -> None:
    for step, value in expected.items():
        assert lr_multiplier(config, 12, step) == pytest.approx(value, abs=1e-12), step


@pytest.mark.parametrize(
    ("max_steps", "expected"), [(1, 0), (19, 0), (20, 1), (1500, 75), (20_000, 1000), (10**6, 1000)]
)
def test_the_default_warmup_is_a_twentieth_of_the_steps_up_to_1000(max_steps: int, expected: int) -> None:
    assert warmup_steps(CosineConfig(), max_steps) == expected


def test_explicit_warmup_is_kept() -> None:
    assert warmup_steps(CosineConfig(warmup_steps=0), 1500) == 0
    assert warmup_steps(CosineConfig(warmup_steps=7), 1500) == 7


@pytest.mark.parametrize("kind", [ScheduleConfig, CosineConfig, LinearConfig, WSDConfig])
@pytest.mark.parametrize("max_steps", [1, 2, 3, 10, 100])
def test_no_step_has_a_learning_rate_of_zero(kind: type[ScheduleConfig], max_steps: int) -> None:
    config = kind(min_lr_ratio=0.0) if issubclass(kind, CosineConfig) else kind()
    assert all(0 < lr_multiplier(config, max_steps, step) <= 1 for step in range(max_steps))


def test_a_negative_step_is_refused() -> None:
    with pytest.raises(ValueError, match="step=-1"):
        lr_multiplier(CosineConfig(), 10, -1)
