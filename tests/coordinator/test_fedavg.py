"""Federated averaging against a float64 mean, an independent library, and its own algebra."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.aggregation import make_rule
from coordinator.aggregation.fedavg import FedAvg, weighted_mean
from nodes.runtime.arrays import F32, F64
from nodes.runtime.sums import block_sum

BLOCK = 16_384


def draw(num_participants: int, size: int, seed: int = 0) -> tuple[F32, F64]:
    rng = np.random.default_rng(seed)
    scale_N = 10.0 ** rng.integers(-3, 4, (num_participants, 1))
    updates_ND = (rng.normal(size=(num_participants, size)) * scale_N).astype(np.float32)
    return updates_ND, rng.integers(1, 5000, num_participants).astype(np.float64)


def bound(updates_ND: F32) -> F64:
    """Rounding error of a float32 sum of N products, per parameter."""
    return len(updates_ND) * 4 * np.finfo(np.float32).eps * np.abs(updates_ND.astype(np.float64)).max(axis=0)


@settings(deadline=None)
@given(st.integers(1, 12), st.sampled_from([1, 3, 50, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7]), st.integers(0, 99))
def test_it_is_the_weighted_mean(num_participants: int, size: int, seed: int) -> None:
    updates_ND, weights_N = draw(num_participants, size, seed)
    mean_D, _, diagnosis = make_rule("fedavg").apply(updates_ND, weights_N)
    exact_D = np.average(updates_ND.astype(np.float64), axis=0, weights=weights_N)
    assert mean_D.dtype == np.float32
    assert np.all(np.abs(mean_D - exact_D) <= bound(updates_ND))
    assert diagnosis.weights_N is not None
    assert diagnosis.weights_N == pytest.approx(weights_N / weights_N.sum())
    assert diagnosis.kept_N.all()


def test_uniform_agrees_with_byzfl(byzfl: ModuleType) -> None:
    updates_ND, weights_N = draw(9, 3 * BLOCK + 5)
    mean_D, _, _ = make_rule("fedavg", weighting="uniform").apply(updates_ND, weights_N)
    assert np.all(np.abs(mean_D - byzfl.Average()(updates_ND)) <= bound(updates_ND))


def test_without_weights_all_count_alike() -> None:
    updates_ND, _ = draw(4, 11)
    assert np.array_equal(
        make_rule("fedavg").apply(updates_ND)[0], make_rule("fedavg", weighting="uniform").apply(updates_ND)[0]
    )


def test_the_mean_is_the_sum_over_blocks_of_64_rows_in_order() -> None:
    updates_ND, weights_N = draw(150, 21_761)
    shares_N = weights_N / weights_N.sum()
    sums = [block_sum(updates_ND[start : start + 64], shares_N[start : start + 64]) for start in (0, 64, 128)]
    mean_D = make_rule("fedavg").apply(updates_ND, weights_N)[0]
    assert np.array_equal(mean_D, (sums[0] + sums[1]) + sums[2])
    rule = FedAvg("rows", partial_sums=True)
    assert np.array_equal(mean_D, rule.combine(sums, 21_761, weights_N.sum(), weights_N.sum()))


def test_sums_are_scaled_to_the_weight_that_was_admitted() -> None:
    updates_ND, weights_N = draw(9, 50)
    expected = weights_N.sum()
    sums = [block_sum(updates_ND[:6], weights_N[:6] / expected)]
    mean_D = FedAvg("rows", partial_sums=True).combine(sums, 50, expected, weights_N[:6].sum())
    exact_D = np.average(updates_ND[:6].astype(np.float64), axis=0, weights=weights_N[:6])
    assert np.all(np.abs(mean_D - exact_D) <= bound(updates_ND[:6]))


def test_a_stacked_selection_gives_the_bits_of_a_compact_matrix() -> None:
    updates_ND, weights_N = draw(8, BLOCK + 9)
    rows = [0, 3, 4, 7]
    strided_ND = updates_ND[::2]
    rule = make_rule("fedavg")
    assert np.array_equal(
        rule.apply(updates_ND[rows], weights_N[rows])[0], rule.apply(updates_ND[rows].copy(), weights_N[rows])[0]
    )
    assert np.array_equal(rule.apply(strided_ND)[0], rule.apply(np.ascontiguousarray(strided_ND))[0])


def test_permuted_rows_with_their_weights_give_the_same_mean_up_to_rounding() -> None:
    updates_ND, weights_N = draw(10, 500)
    order = np.random.default_rng(1).permutation(10)
    one_D = make_rule("fedavg").apply(updates_ND, weights_N)[0]
    other_D = make_rule("fedavg").apply(updates_ND[order], weights_N[order])[0]
    assert np.all(np.abs(one_D - other_D) <= bound(updates_ND))


@pytest.mark.parametrize("factor", [2.0, -0.5, 1024.0])
def test_scaling_updates_by_a_power_of_two_scales_the_mean_exactly(factor: float) -> None:
    updates_ND, weights_N = draw(6, 200)
    rule = make_rule("fedavg")
    scaled_D = rule.apply(updates_ND * np.float32(factor), weights_N)[0]
    assert np.array_equal(scaled_D, rule.apply(updates_ND, weights_N)[0] * np.float32(factor))


def test_translation_moves_the_mean_along() -> None:
    updates_ND, weights_N = draw(6, 200)
    shift_D = np.random.default_rng(2).normal(size=200).astype(np.float32)
    moved_D = make_rule("fedavg").apply(updates_ND + shift_D, weights_N)[0]
    assert np.all(np.abs(moved_D - make_rule("fedavg").apply(updates_ND, weights_N)[0] - shift_D) <= 1e-2)
    assert moved_D == pytest.approx(
        np.average((updates_ND + shift_D).astype(np.float64), axis=0, weights=weights_N), abs=1e-2
    )


def test_one_update_comes_out_again_whatever_its_weight() -> None:
    updates_ND, _ = draw(1, 300)
    assert np.array_equal(make_rule("fedavg").apply(updates_ND, np.array([977.0]))[0], updates_ND[0])


def test_weight_zero_is_no_influence_and_is_told() -> None:
    updates_ND, _ = draw(3, 20)
    weights_N = np.array([2.0, 0.0, 2.0])
    mean_D, _, diagnosis = make_rule("fedavg").apply(updates_ND, weights_N)
    assert np.array_equal(mean_D, make_rule("fedavg").apply(updates_ND[[0, 2]])[0])
    assert diagnosis.kept_N.tolist() == [True, False, True]


def test_the_input_stays_and_the_result_is_new() -> None:
    updates_ND, weights_N = draw(3, BLOCK + 1)
    before, weights_before = updates_ND.tobytes(), weights_N.tobytes()
    updates_ND.setflags(write=False)
    weights_N.setflags(write=False)
    mean_D = make_rule("fedavg").apply(updates_ND, weights_N)[0]
    assert not np.shares_memory(mean_D, updates_ND)
    assert (updates_ND.tobytes(), weights_N.tobytes()) == (before, weights_before)
    assert not np.shares_memory(weighted_mean(updates_ND[:1], np.ones(1)), updates_ND)


def test_no_update_is_refused() -> None:
    with pytest.raises(ValueError, match="no update"):
        make_rule("fedavg").apply(np.empty((0, 4), np.float32), np.empty(0))


@pytest.mark.parametrize("weights", [[0, 0], [-1, 2], [np.nan, 1], [np.inf, 1]])
def test_weights_without_a_meaning_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be non-negative"):
        make_rule("fedavg").apply(np.ones((2, 3), np.float32), np.array(weights, np.float64))


def test_a_wrong_parameter_is_named() -> None:
    with pytest.raises(ValueError, match="rule 'fedavg': weighting: "):
        make_rule("fedavg", weighting="rowz")
