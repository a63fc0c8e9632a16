"""Each task is named in one place, and what its object says fits together."""

import ast
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import c3r_jax
from c3r_jax.core.tasks.registry import TARGETS
from c3r_jax.errors import ConfigError, DataError
from c3r_jax.tasks.registry import CONTRASTIVE, LABELLED, TASKS, named

PACKAGE = pathlib.Path(c3r_jax.__file__).parent


def constants(path):
    """The string constants of a file that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in bare]
    return [node.value for node in nodes if isinstance(node.value, str)]


def test_a_task_is_named_in_its_own_file_alone():
    places = {name: [] for name in TASKS}
    for path in sorted(PACKAGE.rglob("*.py")):
        for text in constants(path):
            if text in places:
                places[text].append(path.relative_to(PACKAGE).parent.as_posix())
    assert places == dict.fromkeys(TASKS, ["tasks"])


def test_every_labelled_task_has_losses():
    assert set(TARGETS) == set(LABELLED) and not set(LABELLED) & set(CONTRASTIVE)
    assert all(task.spec is LABELLED[name] for name, task in TARGETS.items())


@pytest.mark.parametrize("name", TASKS)
def test_a_task_says_one_thing(name):
    task = named(name)
    assert task.name == name and "accuracy" in task.scores and set(task.binary_scores) <= set(task.scores)
    kinds = (task.one_class_per_example, task.label_per_class, task.dense)
    assert sum(kinds) == task.has_classes and task.contrastive == (name in CONTRASTIVE)
    assert task.num_outputs(4) == (4 if task.has_classes or task.contrastive else 1)
    if task.contrastive:
        with pytest.raises(NotImplementedError, match=f"{name} has no labels"):
            task.check_labels(np.zeros(2, int), 2, "demo")


def test_unknown_tasks_are_named():
    with pytest.raises(ConfigError, match=r"config\.task is 'ranking': expected one of classification, multilabel"):
        named("ranking")


@pytest.mark.parametrize(
    ("name", "label", "found"),
    [
        ("classification", None, -1),
        ("classification", np.int64(2), 2),
        ("multilabel", (0, 1, 1), [0, 1, 1]),
        ("regression", "0.5", 0.5),
    ],
)
def test_the_label_of_one_example_is_kept_as_plain_values(name, label, found):
    assert named(name).item_label(label, 3) == found


@pytest.mark.parametrize(
    ("name", "label", "message"),
    [
        ("classification", 3, "its label is 3, expected 0 to 2"),
        ("classification", 0.5, "its label is a float64, expected whole numbers"),
        ("multilabel", (0, 1), r"its label has shape \(2,\), expected \(3,\)"),
        ("regression", None, "its label is None, expected a finite number"),
        ("segmentation", np.zeros((0, 2), int), "its label is empty, expected 0 to 2"),
    ],
)
def test_the_label_of_one_example_that_cannot_be_used_is_named(name, label, message):
    with pytest.raises(DataError, match=message):
        named(name).item_label(label, 3)


@pytest.mark.parametrize(
    ("name", "train", "labels", "constant", "chance"),
    [
        ("classification", [0, 0, 1], [0, 1, 1, 1], 0.25, 0.75),
        ("multilabel", [[1, 0], [1, 0], [0, 1]], [[1, 1], [0, 1]], 0.25, 0.75),
        ("regression", [0.0, 1.0, 5.0], [0.8, 1.4, 1.9, 9.0], 0.5, 0.5),
    ],
)
def test_constant_predictions_are_scored(name, train, labels, constant, chance):
    task = named(name)
    assert task.constant_accuracy(np.array(train), np.array(labels), 0.5)[0] == constant
    assert task.chance(np.array(labels), 0.5) == chance


def test_tasks_load_no_library_but_numpy():
    loads = "import sys, c3r_jax.tasks.registry; print(sorted({'jax', 'flax', 'scipy', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.stdout == "[]\n", done.stderr
