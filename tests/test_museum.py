"""Faults of Keras and slips of users, as their pages run them: is each still wrong, and does lint still say why?

A failure of the first kind is good news: a newer Keras has repaired that fault. Take it out of its page, and give
its rule, in lossviz/rules, the last version that had it (`until`).
"""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("museum", "debugging")  # in this order: the second uses what the first imports


def cells():
    """The code cells that set both pages up, and their exhibits, in order."""
    wanted = {"museum-setup", "exhibit"}
    notebooks = [json.loads(Path(ROOT, "book", f"{page}.ipynb").read_text(encoding="utf-8")) for page in PAGES]
    tagged = [c for one in notebooks for c in one["cells"] if wanted & set(c["metadata"].get("tags", []))]
    return ["".join(cell["source"]) for cell in tagged]


TITLES = [title for source in cells() for title in re.findall(r'^exhibit\("(.+)", ', source, re.M)]


@pytest.fixture(scope="module")
def museum(tmp_path_factory):
    """Title -> (what Keras says, what is right, rules of lint); in a process of its own, which makes two devices."""
    folder = tmp_path_factory.mktemp("museum")
    end = "import json\nprint('museum:' + json.dumps(museum | slips))\n"
    (folder / "run.py").write_text("\n".join([*cells(), end]), encoding="utf-8")
    run = subprocess.run([sys.executable, folder / "run.py"], capture_output=True, text=True, cwd=ROOT)
    assert not run.returncode, run.stderr[-2000:]
    return json.loads(run.stdout.rsplit("museum:", 1)[1])


def test_every_exhibit_is_found():
    assert 20 <= len(TITLES) == len(set(TITLES)) == sum("exhibit(" in source for source in cells()) - len(PAGES)


@pytest.mark.parametrize("title", TITLES)
def test_an_exhibit(title, museum):
    says, right, rules = museum[title]
    assert math.isfinite(right)
    repaired = math.isclose(says, right, rel_tol=1e-3, abs_tol=1e-6)
    assert not repaired, f"Keras {keras.__version__} has repaired {title!r}: it says {says:g}, which is right"
    assert rules, f"lint finds nothing wrong with {title!r}"


def test_no_rule_but_one_is_missing(museum):
    """Every rule has an exhibit, except these, which later chapters and no exhibit show."""
    from lossviz.rules import RULES

    shown = {rule for _, _, rules in museum.values() for rule in rules}
    apart = {
        *("imbalance", "cannot-change", "out-of-reach", "unbounded-output", "kl-targets", "float32-targets", "ctc"),
        *("loss-weights-order", "option-range", "nonfinite-batch", "accumulation", "metric-named-loss"),
        *("unused-option", "dice-background", "class-labels", "tversky-swapped", "hinge-labels", "wrong-direction"),
    }
    assert set(RULES) - shown <= apart
