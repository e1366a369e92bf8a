"""Kinds and presets of installed packages: found, checked, refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import extension


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages, with mylab."""
    extension.install(tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The current directory of the commands."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def error(*arguments: str, site: Path, cwd: Path) -> str:
    """The error line of a command that fails without a traceback."""
    done = extension.gptexp(*arguments, site=site, cwd=cwd)
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("notice: ", "preparing "))]
    assert (done.returncode, len(lines)) == (2, 1), done.stdout + done.stderr
    return lines[0].removeprefix("error: ")


def test_help_shows_the_kinds_and_presets_of_a_package(site: Path, here: Path) -> None:
    shown = extension.gptexp("train", "--help", site=site, cwd=here).stdout
    for option in ("mylab_gru", "mylab_sums", "mylab"):
        assert f"\n  {option} " in shown
    shown = extension.gptexp("train", "--help", "model", site=site, cwd=here).stdout
    assert "kind mylab_gru: Gated recurrent units (Cho et al. 2014).\n  options: mylab_gru" in shown
    assert "Width of the embedding and of the recurrent state." in shown


def test_a_wrong_setting_of_a_package_is_refused_without_torch(site: Path, here: Path) -> None:
    program = (
        "import sys\nfrom gptexp import train\nsys.argv = ['t', 'model=mylab_gru', 'model.n_hiden=3']\n"
        "try: train.main()\nexcept SystemExit as stop: print(stop.code, 'torch' in sys.modules)"
    )
    done = extension.python("-c", program, site=site, cwd=here)
    assert done.stderr == "error: model.n_hiden=3: no such setting; did you mean model.n_hidden or model.n_head?\n"
    assert done.stdout == "2 False\n"


def test_rules_and_names_of_a_package_are_checked_like_gptexps(site: Path, here: Path) -> None:
    assert error("train", "model=mylab_gru", "model.n_hidden=0", site=site, cwd=here) == (
        "model.n_hidden=0: must be at least 1"
    )
    assert error("train", "model=mylab_gur", site=site, cwd=here) == (
        "model=mylab_gur: no such option; did you mean mylab_gru?"
    )
    shown = extension.gptexp("train", "experiment=mylab", "--cfg", "job", site=site, cwd=here).stdout
    assert "kind: mylab_gru\n  block_size: 64\n  n_hidden: 128" in shown
    assert extension.gptexp("--complete", "train", "model=my", site=site, cwd=here).stdout == "model=mylab_gru\n"


def test_two_packages_with_one_kind_are_refused_by_name(site: Path, here: Path) -> None:
    extension.install(site, "ourlab", {"ourlab_gru": "mylab_gru"})
    assert error("train", site=site, cwd=here) == (
        "model.kind=mylab_gru: ourlab 0.1.0 and mylab 0.1.0 have a kind of this name; "
        "rename it in one of them, or uninstall one"
    )


def test_a_kind_with_a_name_of_gptexp_is_refused_by_name(tmp_path: Path, here: Path) -> None:
    extension.install(tmp_path / "site", changes={"mylab_gru": "bigram"})
    assert error("train", site=tmp_path / "site", cwd=here).startswith(
        "model.kind=bigram: mylab 0.1.0 and gptexp have a kind of this name"
    )


def test_presets_with_one_name_are_refused_by_name(site: Path, here: Path) -> None:
    (site / "mylab/conf/model/mlp.yaml").write_text("defaults: [mini_gpt]\n")
    path = site / "mylab/conf/model/mlp.yaml"
    assert error("train", site=site, cwd=here) == (
        f"model=mlp: mylab 0.1.0 and gptexp have a preset of this name; rename {path}, or uninstall one of them"
    )


def test_a_package_that_fails_to_import_hinders_only_its_own_kinds(site: Path, here: Path) -> None:
    (site / "mylab/config.py").write_text("import not_there\n")
    done = extension.gptexp("train", "model=bigram", "--cfg", "job", site=site, cwd=here)
    assert done.returncode == 0
    assert "kind: bigram" in done.stdout
    why = "can't be used: ModuleNotFoundError: No module named 'not_there'"
    notices = [
        f"notice: mylab 0.1.0 ({group} = mylab.config:{name}) {why}; repair or uninstall it"
        for group, name in (
            ("gptexp.models: mylab_gru", "GRUConfig"),
            ("gptexp.corpora: mylab_sums", "SumsConfig"),
        )
    ]
    assert done.stderr.splitlines() == notices
    assert error("train", "model=mylab_gru", site=site, cwd=here) == (
        "In 'model/mylab_gru': model.kind=mylab_gru: mylab 0.1.0 "
        f"(gptexp.models: mylab_gru = mylab.config:GRUConfig) {why}"
    )


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("GRUConfig(ModelConfig)", "GRUConfig", "TypeError: must be a dataclass derived from ModelConfig"),
        ('kind: str = "mylab_gru"', 'kind: str = "gru"', "ValueError: its `kind` must be 'mylab_gru'"),
        ('"mylab.models.gru:GRU"', '"os:system"', "ValueError: its `implementation` must name code of mylab"),
        ('"mylab.models.gru:GRU"', '"mylab.models.gru"', "ValueError: its `implementation` must name code of mylab"),
    ],
)
def test_a_wrong_config_class_is_named_with_the_reason(
    tmp_path: Path, here: Path, old: str, new: str, why: str
) -> None:
    extension.install(tmp_path / "site", changes={old: new, "ModelConfig.__post_init__(self)": "pass"})
    assert why in error("train", "model=mylab_gru", site=tmp_path / "site", cwd=here)


def test_an_implementation_that_is_missing_is_named(tmp_path: Path, here: Path) -> None:
    extension.install(tmp_path / "site", changes={'"mylab.models.gru:GRU"': '"mylab.models.gru:LSTM"'})
    found = error("train", "experiment=mylab", "debug=smoke", site=tmp_path / "site", cwd=here)
    assert found.startswith("model.kind=mylab_gru: mylab 0.1.0: mylab.models.gru:LSTM: ")


def test_a_config_module_that_imports_torch_works_with_a_notice(tmp_path: Path, here: Path) -> None:
    package = extension.install(tmp_path / "site")
    config = package / "config.py"
    config.write_text("import torch\n" + config.read_text(encoding="utf-8"), encoding="utf-8")
    done = extension.gptexp("train", "experiment=mylab", "--cfg", "job", site=tmp_path / "site", cwd=here)
    assert done.returncode == 0
    assert done.stderr == (
        "notice: mylab 0.1.0: mylab.config imports torch, so every command starts slowly; "
        "import it in the module of the implementation\n"
    )


def test_metadata_in_the_current_directory_does_not_count(site: Path) -> None:
    assert error("train", "model=mylab_gru", site=site, cwd=site).startswith("model=mylab_gru: no such option")


def test_the_code_hash_covers_the_packages_that_a_run_uses(site: Path, here: Path) -> None:
    program = (
        "from gptexp.compose.composition import compose\nfrom gptexp.runs.code_hash import code_sha256\n"
        "print(code_sha256(compose(['model=bigram'])), code_sha256(compose(['experiment=mylab'])), code_sha256())"
    )
    before = extension.python("-c", program, site=site, cwd=here).stdout.split()
    (site / "mylab/models/gru.py").write_text("GRU = None\n")
    after = extension.python("-c", program, site=site, cwd=here).stdout.split()
    assert before[0] == before[2] == after[0] == after[2] != before[1] != after[1]
