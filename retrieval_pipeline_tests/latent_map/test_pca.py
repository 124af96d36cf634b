import numpy as np
import pytest
from sklearn.decomposition import PCA

from retrieval_pipeline.errors import MapError, VectorError
from retrieval_pipeline.latent_map.pca import Basis, Matrix, alignment, drift, fit_basis
from retrieval_pipeline.vectors import Vectors, normalise

DIM = 24


def cloud(count: int = 500, seed: int = 1, spread: tuple[float, ...] = (3, 2, 1.5)) -> Vectors:
    """Unit vectors around a far point, as those of CLIP, widest along the first axes."""
    rng = np.random.default_rng(seed)
    scale = np.full(DIM, 0.3)
    scale[: len(spread)] = spread
    return normalise(rng.standard_normal((count, DIM)) * scale + 4)


def turned_by(degrees: float, axes: tuple[int, int]) -> Matrix:
    rotation = np.eye(3)
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation[np.ix_(axes, axes)] = [[cos, -sin], [sin, cos]]
    return rotation


@pytest.mark.parametrize("batch", [1, 7, 64, 500])
def test_axes_and_variances_are_those_of_exact_pca_however_the_vectors_are_batched(
    batch: int,
) -> None:
    vectors = cloud()
    basis = fit_basis((vectors[i : i + batch] for i in range(0, 500, batch)), DIM)
    exact = PCA(3, svd_solver="full").fit(vectors.astype(np.float64))
    assert np.abs(np.sum(basis.components * exact.components_, axis=1)) == pytest.approx(1)
    assert basis.explained == pytest.approx(exact.explained_variance_ratio_, rel=1e-4)
    assert basis.mean == pytest.approx(exact.mean_, abs=1e-6)
    signs = np.sign(np.sum(basis.components * exact.components_, axis=1))
    expected = exact.transform(vectors.astype(np.float64)) * signs
    assert basis.project(vectors) == pytest.approx(expected, abs=1e-5)


def test_each_axis_points_where_its_largest_loading_is_positive() -> None:
    for vectors in (cloud(), normalise(8 * cloud().mean(axis=0) - cloud())):
        components = fit_basis([vectors], DIM).components
        largest = np.argmax(np.abs(components), axis=1)
        assert (components[np.arange(3), largest] > 0).all()


def test_vectors_that_are_all_the_same_explain_nothing() -> None:
    basis = fit_basis([np.repeat(cloud(1), 5, axis=0)], DIM)
    assert basis.explained == pytest.approx([0, 0, 0], abs=1e-6)
    assert np.isfinite(basis.project(cloud(1))).all()


def test_a_vector_with_nan_is_refused_by_its_number() -> None:
    vectors = cloud(10)
    vectors[6, 3] = np.nan
    with pytest.raises(VectorError, match=r"vector of the map 6 .*nan"):
        fit_basis([vectors], DIM)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_images_are_no_map(count: int) -> None:
    batches = [cloud(count)] if count else []
    with pytest.raises(MapError, match=f"at least 3 images; here are {count}"):
        fit_basis(batches, DIM)


def test_alignment_undoes_any_turn_among_axes_of_equal_variance() -> None:
    before = np.random.default_rng(3).standard_normal((200, 3)).astype(np.float32)
    for axes in ((0, 1), (1, 2), (0, 2)):
        turn = turned_by(50, axes) @ np.diag([1, -1, 1])
        now = (before @ turn).astype(np.float32)
        rotation = alignment(np.array([0.1, 0.1, 0.1]), now, before)
        assert now @ rotation == pytest.approx(before, abs=1e-5)
        assert rotation @ rotation.T == pytest.approx(np.eye(3))


def test_alignment_keeps_the_plane_that_shows_most_when_other_data_made_it_new() -> None:
    before = np.random.default_rng(3).standard_normal((200, 3)).astype(np.float32)
    # The former second axis explains next to nothing now.
    now = (before @ turned_by(90, (1, 2)) @ np.diag([-1, 1, 1])).astype(np.float32)
    explained = np.array([0.4, 0.3, 0.01])
    rotation = alignment(explained, now, before)
    assert np.square(rotation).T @ explained @ [1, 1, 0] == pytest.approx(0.7)
    assert (now @ rotation)[:, 0] == pytest.approx(before[:, 0], abs=0.3)


def test_a_turned_basis_gives_the_turned_coordinates() -> None:
    vectors = cloud()
    basis = fit_basis([vectors], DIM)
    rotation = turned_by(30, (0, 1))
    turned: Basis = basis.turned(rotation)
    coordinates = turned.project(vectors)
    assert coordinates == pytest.approx(basis.project(vectors) @ rotation, abs=1e-5)
    total = (vectors - vectors.mean(axis=0)).var(axis=0).sum()
    assert turned.explained == pytest.approx(coordinates.var(axis=0) / total, rel=1e-3)


def test_drift_is_the_share_of_the_former_size_that_images_moved() -> None:
    # Four corners at distance 5 from the middle, all moved by 1.
    before = np.array([[3, 4, 0], [-3, 4, 0], [3, -4, 0], [-3, -4, 0]], np.float32)
    assert drift(before, before) == 0
    assert drift(before + np.array([1, 0, 9], np.float32), before) == pytest.approx(0.2)


def test_a_little_new_data_moves_an_aligned_map_little_although_its_axes_swap() -> None:
    # The first two variances are nearly equal, and the new images make the second the larger one.
    old = cloud(400, spread=(2.02, 2.0, 1))
    extra = cloud(40, seed=2, spread=(0.3, 5, 1))
    first = fit_basis([old], DIM)
    second = fit_basis([old, extra], DIM)
    before, now = first.project(old), second.project(old)
    rotation = alignment(second.explained, now, before)
    aligned = second.turned(rotation).project(old)
    assert drift(now, before) > 0.5
    assert drift(aligned, before) < 0.1
