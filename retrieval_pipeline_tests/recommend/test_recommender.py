from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.svm import SVC

from retrieval_pipeline.errors import QueryError, RecommendError, StoreError
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.index.knn import Plan
from retrieval_pipeline.recommend import svm
from retrieval_pipeline.recommend.active_learning import STRATEGIES, Pool, next_item
from retrieval_pipeline.recommend.recommender import Candidate, Recommender
from retrieval_pipeline.recommend.svm import (
    Parameters,
    Votes,
    cross_validate,
    rank,
    train,
    tune,
    tuning_size,
)
from retrieval_pipeline.recommend.votes import add_judgements, read_judgements
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Numbers, Vectors, VectorSpace, normalise
from retrieval_pipeline_tests.support.library import settings_of
from retrieval_pipeline_tests.support.plans import search_by_trees
from synthetic.tables import content, random_vectors, write_manifest, write_part

DIM = 16
SPACE = VectorSpace("offline", "r1", DIM, "p")


def tastes(count: int, share: float = 0.2, seed: int = 0) -> tuple[Vectors, np.ndarray]:
    """Vectors in two clouds that overlap a little, and which of them are liked."""
    rng = np.random.default_rng(seed)
    liked = rng.permutation(count) < share * count
    vectors = rng.standard_normal((count, DIM)) / 4
    vectors[:, 0] += 1
    vectors[liked, 1] += 1
    return normalise(vectors), liked


def pool_of(vectors: Vectors, seen: Numbers) -> Pool:
    unseen = np.ones(len(vectors), np.bool_)
    unseen[seen] = False

    def neighbours(vector: Vectors) -> Numbers:
        return np.argsort(-(vectors @ vector), kind="stable")[:20]

    return Pool(unseen, lambda numbers: vectors[numbers], neighbours)


def votes_on(vectors: Vectors, liked: np.ndarray, numbers: list[int]) -> Votes:
    rows = np.array(numbers, np.int64)
    return Votes(rows, vectors[rows], liked[rows])


def test_scores_are_those_of_scikit_learn() -> None:
    vectors, liked = tastes(200)
    parameters = Parameters(10.0, 2.5)
    model = train(vectors[:100], liked[:100], parameters)
    assert model is not None
    svm = SVC(kernel="rbf", C=10.0, gamma=2.5, class_weight="balanced")
    svm.fit(vectors[:100], liked[:100])
    np.testing.assert_allclose(model.scores(vectors), svm.decision_function(vectors), atol=1e-4)


@pytest.mark.parametrize("liked", [[], [True] * 9, [False] * 9, [True] * 2 + [False] * 9])
def test_without_three_votes_of_each_kind_there_is_no_model(liked: list[bool]) -> None:
    assert train(random_vectors(len(liked), DIM), np.array(liked, np.bool_)) is None


def test_three_votes_of_each_kind_make_a_model_that_tells_them_apart() -> None:
    vectors, liked = tastes(400)
    numbers = [*np.flatnonzero(liked)[:3], *np.flatnonzero(~liked)[:3]]
    model = train(vectors[numbers], liked[numbers])
    assert model is not None
    assert np.mean((model.scores(vectors) > 0) == liked) > 0.8


def test_votes_on_copies_of_one_vector_do_no_harm() -> None:
    vectors = np.repeat(random_vectors(1, DIM), 40, axis=0)
    liked = np.arange(40) % 2 == 0
    model = train(vectors, liked, tune(vectors, liked))
    assert model is not None
    assert np.isfinite(model.scores(vectors)).all()


def test_tuning_waits_for_enough_votes_and_never_changes_between_its_sizes() -> None:
    vectors, liked = tastes(300)
    assert tune(vectors[:20], liked[:20]) is None
    sizes = [tuning_size(liked[:count]) for count in range(301)]
    first = next(count for count, size in enumerate(sizes) if size)
    assert min(liked[:first].sum(), (~liked[:first]).sum()) == svm.TUNING_VOTES
    assert sizes == sorted(sizes)
    assert all(size <= count < 1.3 * size for count, size in enumerate(sizes) if size)
    assert len(set(sizes)) < 12
    parameters = tune(vectors[:first], liked[:first])
    assert parameters is not None
    assert parameters == tune(vectors[:first], liked[:first])
    assert parameters.c in svm.C_GRID


def test_tuning_takes_the_parameters_that_rank_held_out_votes_best(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors, liked = tastes(120, share=0.4)
    monkeypatch.setattr(svm, "GAMMA_GRID", (1e-9, 1.0, 1e6))
    parameters = tune(vectors, liked)
    assert parameters is not None
    assert parameters.gamma == pytest.approx(1 / (DIM * vectors.var()))


def test_cross_validation_sees_a_taste_and_sees_none_in_noise() -> None:
    vectors, liked = tastes(150, share=0.4)
    quality = cross_validate(vectors, liked)
    assert quality is not None
    assert quality.accuracy > 0.9
    assert quality.average_precision > 0.9
    chance = cross_validate(vectors, np.random.default_rng(1).permutation(liked))
    assert chance is not None
    assert chance.average_precision < 0.65
    assert cross_validate(vectors[:4], np.array([True, True, False, False])) is None


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rule", ["some", "all", "none"])
def test_every_image_is_shown_once_whatever_is_liked(strategy: str, rule: str) -> None:
    vectors, liked = tastes(30)
    liked = {"some": liked, "all": liked | True, "none": liked & False}[rule]
    seen: list[int] = []
    while True:
        votes = votes_on(vectors, liked, seen)
        model = train(votes.vectors, votes.liked)
        rng = np.random.default_rng(len(seen))
        number = next_item(pool_of(vectors, votes.numbers), votes, model, strategy, rng)
        if number is None:
            break
        seen.append(number)
    assert sorted(seen) == list(range(30))


def test_alternating_shows_a_predicted_like_and_a_predicted_dislike_in_turn() -> None:
    vectors, liked = tastes(400, share=0.5)
    seen = [*np.flatnonzero(liked)[:5].tolist(), *np.flatnonzero(~liked)[:5].tolist()]
    predictions = []
    for turn in range(20):
        votes = votes_on(vectors, liked, seen)
        model = train(votes.vectors, votes.liked)
        assert model is not None
        pool = pool_of(vectors, votes.numbers)
        number = next_item(pool, votes, model, "alternating", np.random.default_rng(turn))
        assert number is not None
        predictions.append(bool(model.scores(vectors[[number]])[0] > 0))
        seen.append(number)
    assert predictions == [True, False] * 10


def test_when_nothing_more_is_predicted_positive_the_most_likely_is_shown() -> None:
    vectors, liked = tastes(300)
    seen = [*np.flatnonzero(liked).tolist(), *np.flatnonzero(~liked)[:60].tolist()]
    votes = votes_on(vectors, liked, seen)
    model = train(votes.vectors, votes.liked)
    assert model is not None
    rest = np.setdiff1d(np.arange(300), seen)
    rest = rest[model.scores(vectors[rest]) < 0]
    hidden = np.setdiff1d(np.arange(300), rest)
    pool = pool_of(vectors, hidden)
    number = next_item(pool, votes, model, "alternating", np.random.default_rng(0))
    assert number == rest[np.argmax(model.scores(vectors[rest]))]


def test_uncertain_shows_what_lies_closest_to_the_boundary() -> None:
    vectors, liked = tastes(300)
    seen = [*np.flatnonzero(liked)[:10].tolist(), *np.flatnonzero(~liked)[:10].tolist()]
    votes = votes_on(vectors, liked, seen)
    model = train(votes.vectors, votes.liked)
    assert model is not None
    pool = pool_of(vectors, votes.numbers)
    number = next_item(pool, votes, model, "uncertain", np.random.default_rng(0))
    rest = np.setdiff1d(np.arange(300), seen)
    assert number == rest[np.argmin(np.abs(model.scores(vectors[rest])))]


def test_the_start_is_diverse_though_most_images_are_alike() -> None:
    kinds = np.eye(8, DIM, dtype=np.float32)
    alike = np.repeat(kinds[:1], 500, axis=0) + 0.01 * random_vectors(500, DIM)
    vectors = normalise(np.concatenate([alike, kinds[1:]]))
    liked = np.zeros(len(vectors), np.bool_)
    seen: list[int] = []
    for turn in range(16):
        votes = votes_on(vectors, liked, seen)
        pool = pool_of(vectors, votes.numbers)
        number = next_item(pool, votes, None, "alternating", np.random.default_rng(turn))
        assert number is not None
        seen.append(number)
    kinds_seen = {int(np.argmax(kinds @ vectors[number])) for number in seen}
    assert len(kinds_seen) >= 7


def test_a_kind_that_is_still_missing_is_looked_for_near_the_votes_of_it() -> None:
    vectors, liked = tastes(300, share=0.05)
    like = int(np.flatnonzero(liked)[0])
    dislikes = np.flatnonzero(~liked)[:4].tolist()
    votes = votes_on(vectors, liked, [like, *dislikes])
    pool = pool_of(vectors, votes.numbers)
    number = next_item(pool, votes, None, "alternating", np.random.default_rng(0))
    near = np.argsort(-(vectors @ vectors[like]))
    assert number == next(each for each in near if each not in [like, *dislikes])


def test_a_ranking_in_chunks_is_the_whole_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, liked = tastes(500)
    model = train(vectors[:80], liked[:80])
    assert model is not None
    wanted = np.arange(500) >= 80
    whole, scores = rank(model, lambda numbers: vectors[numbers], wanted, 1_000)
    monkeypatch.setattr(svm, "CHUNK_ROWS", 7)
    few, _ = rank(model, lambda numbers: vectors[numbers], wanted, 50)
    assert sorted(whole) == list(range(80, 500))
    assert (np.diff(scores) <= 0).all()
    assert few.tolist() == whole[:50].tolist()
    none, _ = rank(model, lambda numbers: vectors[numbers], wanted & False, 5)
    assert len(none) == 0


@pytest.fixture
def searcher(tmp_path: Path) -> Searcher:
    """A build of 120 images in two sources; the name of those to like begins with "good"."""
    return searcher_of(tmp_path, range(120))


def names_of(liked: np.ndarray) -> list[str]:
    return [f"{'good' if good else 'bad'}{number}" for number, good in enumerate(liked)]


def searcher_of(tmp_path: Path, kept: range) -> Searcher:
    store = Store(tmp_path / "home")
    vectors, liked = tastes(120)
    names = names_of(liked)
    half = [names[each] for each in kept if each < 60]
    rest = [names[each] for each in kept if each >= 60]
    write_manifest(store, "a", {f"{name}.jpg": name for name in half})
    write_manifest(store, "b", {f"{name}.jpg": name for name in [*rest, half[0]]})
    if not store.parts(SPACE):
        write_part(store, SPACE, "a", names, vectors)
    build_index(store, SPACE, ["a", "b"])
    return Searcher.open(settings_of(store.home, a=tmp_path / "A", b=tmp_path / "B"))


def vote_all(recommender: Recommender, count: int) -> list[str]:
    shown = []
    for _ in range(count):
        picture = recommender.next()
        assert picture is not None
        shown.append(picture.path.stem)
        recommender.vote(picture, picture.path.stem.startswith("good"))
    return shown


def test_a_session_learns_and_ranks_what_was_not_shown(searcher: Searcher) -> None:
    recommender = Recommender(searcher, "good")
    with pytest.raises(RecommendError, match="0 liked, 0 not; missing 3 liked and 3 not liked"):
        recommender.ranking(5)
    shown = vote_all(recommender, 40)
    assert len(set(shown)) == 40
    ranking = recommender.ranking(1_000)
    assert len(ranking) == 80
    assert not {picture.path.stem for picture in ranking} & set(shown)
    good = [picture.path.stem.startswith("good") for picture in ranking]
    assert average_precision_score(good, [picture.score for picture in ranking]) > 0.5
    assert len(recommender.right) > 10
    assert np.mean(recommender.right) > 0.6


def test_a_session_that_stops_goes_on_as_if_it_had_not(searcher: Searcher) -> None:
    through = vote_all(Recommender(searcher, "one"), 45)
    first = vote_all(Recommender(searcher, "two"), 15)
    assert first + vote_all(Recommender(searcher, "two"), 30) == through


def test_votes_survive_another_index_and_those_on_images_that_have_gone_are_kept(
    searcher: Searcher, tmp_path: Path
) -> None:
    shown = vote_all(Recommender(searcher, "good"), 40)
    before = read_judgements(Store(tmp_path / "home"), "good")
    fewer = searcher_of(tmp_path, range(30, 120))
    again = Recommender(fewer, "good")
    ids = fewer.corpus.items["content_id"]
    left = set(ids.take(again.votes.numbers).to_pylist())
    assert left == {content(name) for name in shown if int(name.strip("gobad")) >= 30}
    assert again.gone > 0
    assert len(again.votes) == 40 - again.gone
    assert read_judgements(Store(tmp_path / "home"), "good") == before


def test_undo_shows_the_picture_again_and_forgets_the_prediction(searcher: Searcher) -> None:
    recommender = Recommender(searcher, "good")
    assert recommender.undo() == (None, None)
    vote_all(recommender, 30)
    predictions, ranking = recommender.right, recommender.ranking(9)
    picture = recommender.next()
    assert picture is not None
    recommender.vote(picture, True)
    undone, shown = recommender.undo()
    assert undone is not None
    assert shown is not None
    assert undone.content_id == shown.content_id == picture.content_id
    assert recommender.right == predictions
    assert recommender.ranking(9) == ranking


def test_a_vote_that_cannot_be_stored_does_not_count(searcher: Searcher, tmp_path: Path) -> None:
    recommender = Recommender(searcher, "good")
    vote_all(recommender, 3)
    Store(tmp_path / "home").judgements("good").write_bytes(b"PAR1")
    picture = recommender.next()
    assert picture is not None
    with pytest.raises(StoreError, match=r"good\.parquet"):
        recommender.vote(picture, True)
    assert len(recommender.votes) == 3
    assert recommender.next() == picture


def test_only_images_of_the_sources_asked_for_are_shown_and_ranked(searcher: Searcher) -> None:
    vote_all(Recommender(searcher, "good"), 40)
    recommender = Recommender(searcher, "good", sources=["b"])
    assert {picture.location.source for picture in recommender.ranking(100)} == {"b"}
    assert len(recommender.votes) == 40
    with pytest.raises(QueryError, match='no source "c"'):
        Recommender(searcher, "good", sources=["c"])


def test_a_picture_set_aside_is_not_shown_again(searcher: Searcher) -> None:
    recommender = Recommender(searcher, "good")
    first = recommender.next()
    assert first is not None
    recommender.set_aside(first)
    assert first.content_id not in {
        picture.content_id for picture in iter(lambda: _next_and_set_aside(recommender), None)
    }


def _next_and_set_aside(recommender: Recommender) -> Candidate | None:
    picture = recommender.next()
    if picture is not None:
        recommender.set_aside(picture)
    return picture


def test_when_all_are_judged_there_is_nothing_to_show_and_nothing_to_rank(
    searcher: Searcher,
) -> None:
    recommender = Recommender(searcher, "good", strategy="uncertain")
    vote_all(recommender, 120)
    assert recommender.next() is None
    assert recommender.ranking(3) == []
    assert recommender.quality() is not None


def test_another_voter_of_the_same_name_is_heard(searcher: Searcher, tmp_path: Path) -> None:
    recommender = Recommender(searcher, "good")
    vote_all(recommender, 2)
    other = Recommender(searcher, "good")
    vote_all(other, 3)
    vote_all(recommender, 1)
    assert len(recommender.votes) == len(set(recommender.votes.numbers.tolist()))
    assert len(read_judgements(Store(tmp_path / "home"), "good")) == 6


def test_the_last_vote_on_an_image_is_trained_on(searcher: Searcher, tmp_path: Path) -> None:
    recommender = Recommender(searcher, "good")
    vote_all(recommender, 5)
    content_ids = searcher.corpus.items["content_id"].take(recommender.votes.numbers[:1])
    picture = recommender.picture(content_ids[0].as_py())
    assert picture is not None
    was = bool(recommender.votes.liked[0])
    recommender.vote(picture, not was)
    assert len(recommender.votes) == 5
    assert bool(recommender.votes.liked[-1]) is not was


def test_the_trees_and_the_scan_give_the_same_session(searcher: Searcher, tmp_path: Path) -> None:
    scanned = vote_all(Recommender(searcher, "scan"), 40)
    build = searcher.corpus
    trees = Plan(kind="trees", candidates=300, search_k=16_000)
    search_by_trees(build, trees, tmp_path)
    assert vote_all(Recommender(searcher, "trees"), 40) == scanned


def test_votes_from_elsewhere_train_at_once(searcher: Searcher) -> None:
    recommender = Recommender(searcher, "good")
    names = names_of(tastes(120)[1])
    recommender.add([(content(name), name.startswith("good")) for name in names[:50]])
    recommender.add([(content("unknown"), True)])
    assert recommender.gone == 1
    assert len(recommender.votes) == 50
    assert recommender.ranking(1)[0].path.stem.startswith("good")


def test_fewer_than_three_images_end_with_what_is_missing(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    write_manifest(store, "a", {"x.jpg": "x", "y.jpg": "y"})
    write_part(store, SPACE, "a", ["x", "y"], random_vectors(2, DIM))
    build_index(store, SPACE, ["a"])
    add_judgements(store, "few", [(content("x"), True)])
    recommender = Recommender(Searcher.open(settings_of(store.home, a=tmp_path)), "few")
    picture = recommender.next()
    assert picture is not None
    recommender.vote(picture, True)
    assert recommender.next() is None
    with pytest.raises(RecommendError, match="2 liked, 0 not; missing 1 liked and 3 not liked"):
        recommender.ranking(3)
