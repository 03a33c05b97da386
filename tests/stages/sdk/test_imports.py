"""Imports without the garbage collector, and without packages that are only there."""

from __future__ import annotations

import gc
import sys

import pytest

from finetune_stages.sdk import quick_imports, without


@pytest.fixture(autouse=True)
def _collector_as_before():
    """Other tests of this process are not to lose what they leave behind."""
    yield
    gc.unfreeze()
    gc.enable()


def test_what_is_made_inside_is_never_looked_at_again() -> None:
    with quick_imports():
        assert not gc.isenabled()
        made = [[] for _ in range(1000)]
    assert gc.isenabled()
    looked_at = {id(one) for one in gc.get_objects()}
    assert not any(id(one) in looked_at for one in made)


def test_an_import_that_fails_leaves_the_collector_at_work() -> None:
    with pytest.raises(ModuleNotFoundError), quick_imports():
        import nothing_of_that_name  # noqa: F401
    assert gc.isenabled()


def test_one_inside_another_leaves_the_collector_to_the_outer_one() -> None:
    with quick_imports():
        with quick_imports():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_package_is_hidden_while_it_lasts(tmp_path, monkeypatch) -> None:
    (tmp_path / "only_there.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with without("only_there"), pytest.raises(ModuleNotFoundError):
        import only_there
    import only_there

    monkeypatch.delitem(sys.modules, "only_there")
    assert only_there.__name__ == "only_there"


def test_a_package_that_is_at_work_stays() -> None:
    with without("json"):
        import json

        assert json.loads("1") == 1
    assert "json" in sys.modules
