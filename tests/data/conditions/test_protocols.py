import itertools

import numpy as np
import pytest

from c3r_jax.data.conditions.missing import Misaligned
from c3r_jax.data.conditions.protocols import (
    PROTOCOL_NAMES,
    Condition,
    apply_condition,
    noise_condition,
    protocol_conditions,
    standard_conditions,
)
from c3r_jax.errors import ConfigError, DataError


def noises(name, modalities):
    return protocol_conditions([name], modalities)[1:]


def test_standard_conditions_of_two():
    conditions = standard_conditions(("image", "text"))
    names = ["clean", "image only", "text only", *(f"{a} {n}" for a in ("noise", "salt") for n in (1, 2, 3))]
    assert [condition.name for condition in conditions] == names
    groups = ["clean"] + ["modality_subset"] * 2 + ["gaussian"] * 3 + ["salt"] * 3
    assert [condition.group for condition in conditions] == groups


def test_standard_conditions_of_four_have_every_proper_subset_once():
    kept = [c.modalities for c in standard_conditions("abcd") if c.group == "modality_subset"]
    assert len(kept) == len(set(kept)) == 14
    assert ("a", "c") in kept


@pytest.fixture
def example():
    rng = np.random.default_rng(1)
    return {
        "image": rng.integers(0, 256, (8, 8, 3)).astype(np.uint8),
        "text": "one two three four five six",
        "sound": rng.standard_normal(6).astype(np.float32),
        "label": 2,
        "index": 17,
    }


MODALITIES = ("image", "text", "sound")


def same(left, right):
    return all(np.array_equal(left[name], right[name]) for name in MODALITIES)


def test_clean_adds_present_only(example):
    clean = apply_condition(example, standard_conditions(MODALITIES)[0], 0)
    assert same(clean, example)
    np.testing.assert_array_equal(clean["present"], [True] * 3)
    assert "present" not in example


def test_subset_empties_what_is_missing(example):
    changed = apply_condition(example, Condition("text only", "modality_subset", 0, ("text",)), 0)
    np.testing.assert_array_equal(changed["present"], [False, True, False])
    assert not changed["image"].any()
    assert not changed["sound"].any()
    assert changed["text"] == example["text"]


def test_missing_stays_missing(example):
    present = np.array([True, False, True])
    changed = apply_condition({**example, "present": present}, standard_conditions(MODALITIES)[0], 0)
    np.testing.assert_array_equal(changed["present"], present)


def test_noise_depends_on_seed_index_and_condition_only(example):
    first, second = noises("gaussian", MODALITIES)[1:]
    noisy = apply_condition(example, first, 3)
    assert same(noisy, apply_condition(example, first, 3))
    assert not same(noisy, apply_condition(example, first, 4))
    assert not same(noisy, apply_condition({**example, "index": 18}, first, 3))
    assert not same(noisy, apply_condition(example, second, 3))


def test_modalities_draw_independently(example):
    """Another modality beside it must not change what an image goes through."""
    condition = noises("gaussian", ("image",))[0]
    alone = {key: value for key, value in example.items() if key not in ("text", "sound")}
    whole = apply_condition(example, noises("gaussian", MODALITIES)[0], 0)
    np.testing.assert_array_equal(apply_condition(alone, condition, 0)["image"], whole["image"])


def test_two_modalities_of_one_kind_get_different_noise(example):
    views = {"front": example["image"], "back": example["image"], "index": 0}
    for protocol in ("gaussian", "salt"):
        noisy = apply_condition(views, noises(protocol, ("front", "back"))[1], 0)
        assert not np.array_equal(noisy["front"], noisy["back"])


def test_harder_levels_change_more(example):
    for protocol in ("gaussian", "salt"):
        change = [
            np.abs(apply_condition(example, c, 0)["image"].astype(int) - example["image"]).mean()
            for c in noises(protocol, MODALITIES)
        ]
        assert all(low < high for low, high in itertools.pairwise(change))


# Name, Gaussian sd per eps, probability of salt per eps, word mask per eps; each with probability 1/2.
TABLE = {"official": (10, 0.1, 0.1), "qmf": (10, 0.01, 0.1), "nyud2": (1, 0.1, 0.0)}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("eps", [5, 10])
def test_published_protocols_are_the_table(name, eps):
    """Who is hit, and how hard, counted over examples: each count within five standard deviations of a binomial."""
    sd, salt, mask = (x * eps for x in TABLE[name])
    n, image, words = 1200, np.full((16, 16, 3), 128, np.uint8), " ".join("abcdefghij")
    found = {c.group: c for c in protocol_conditions([name], ("image", "text")) if c.level == eps}
    assert set(found) == {f"{name}_gaussian", f"{name}_salt"}
    for group, chance in ((f"{name}_gaussian", 0.5), (f"{name}_salt", 0.5 * salt)):
        example = {"image": image, "text": words}
        noisy = [apply_condition({**example, "index": i}, found[group], 0) for i in range(n)]
        hit = np.array([(e["image"] != 128).any() for e in noisy])
        masked = np.array([e["text"].split().count("[MASK]") for e in noisy])
        assert_rate(hit, chance)
        assert_rate(masked > 0, 0.5 * (1 - (1 - mask) ** 10))
        if mask:
            assert abs(masked[masked > 0].mean() / (10 * mask / (1 - (1 - mask) ** 10)) - 1) < 0.05
            both = 0.5 * (1 - (1 - mask) ** 10) * chance
            assert_rate(hit & (masked > 0), both)  # the modalities draw independently
        values = np.stack([e["image"] for e in noisy])[hit]
        if group.endswith("gaussian") and eps * TABLE[name][0] <= 50:  # harder noise saturates: its sd is smaller
            assert abs(values.astype(float).std() / sd - 1) < 0.05
        elif group.endswith("salt"):
            assert np.isin(values, (0, 128, 255)).all()
            assert abs((values != 128).mean() - 0.1) < 0.01


def assert_rate(hit, p):
    assert abs(hit.mean() - p) <= 5 * np.sqrt(p * (1 - p) / len(hit)) + 1e-12, (hit.mean(), p)


def test_level_zero_is_the_clean_condition():
    conditions = protocol_conditions(["official", "official_salt"], MODALITIES)
    assert [c.name for c in conditions] == [
        "clean",
        *(f"official {kind} {eps}" for kind in ("noise", "salt") for eps in (5, 10)),
    ]


def test_every_protocol_runs(example):
    conditions = protocol_conditions(PROTOCOL_NAMES, MODALITIES)
    assert len({c.name for c in conditions}) == len(conditions) == 1 + 6 + 2 * (3 + 2 * 3) + 10 * 4 + 10 * 3
    for condition in conditions:
        if not isinstance(condition.change, Misaligned):
            apply_condition(example, condition, 0)


def test_one_modality_is_neither_missing_nor_misaligned():
    assert [c.name for c in protocol_conditions(["subsets", "missing", "misaligned"], ("image",))] == ["clean"]


def test_noise_by_family_and_level():
    assert noise_condition("qmf_salt:5", MODALITIES) == noises("qmf_salt", MODALITIES)[0]
    for text in ("official:5", "qmf_salt", "qmf_salt:7", ""):
        with pytest.raises(ConfigError, match=r"expected family:level, one of gaussian:1\|2\|3"):
            noise_condition(text, MODALITIES)


def test_missing_modalities_hold_nothing(example):
    condition = next(c for c in protocol_conditions(["missing"], MODALITIES) if c.name == "missing sound 100 %")
    changed = apply_condition(example, condition, 0)
    np.testing.assert_array_equal(changed["present"], [True, True, False])
    assert not changed["sound"].any() and example["sound"].any()
    assert changed["text"] == example["text"]


def test_what_cannot_be_applied(example):
    with pytest.raises(DataError, match=r"keeps \('smell',\), expected some of"):
        apply_condition(example, Condition("x", "clean", 0, ("smell",)), 0)
    with pytest.raises(DataError, match=r"keeps \(\)"):
        apply_condition(example, Condition("x", "clean", 0, ()), 0)
    with pytest.raises(DataError, match="needs the whole split: use eval_batches"):
        apply_condition(example, protocol_conditions(["misaligned"], MODALITIES)[-1], 0)
    with pytest.raises(DataError, match="Modality 'text' is a int, expected"):
        apply_condition({**example, "text": 3}, standard_conditions(MODALITIES)[0], 0)
    with pytest.raises(ValueError, match="seed is -1"):
        apply_condition(example, standard_conditions(MODALITIES)[0], -1)
    with pytest.raises(ConfigError, match="Protocol 'rain' is unknown: expected some of official, qmf, nyud2"):
        protocol_conditions(["rain"], MODALITIES)
