import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrieval_pipeline.errors import RecommendError, StoreError
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.recommend.votes import (
    add_judgements,
    read_judgements,
    recommender_names,
    require_recommender,
    undo_judgement,
    votes_that_count,
)
from retrieval_pipeline.storage.store import Store
from synthetic.tables import content

CAT, DOG, CAR = content("cat"), content("dog"), content("car")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def votes(store: Store, name: str = "pets") -> list[tuple[str, bool]]:
    return [(vote.content_id, vote.liked) for vote in read_judgements(store, name)]


def test_every_vote_is_kept_in_its_order(store: Store) -> None:
    add_judgements(store, "pets", [(CAT, True)])
    add_judgements(store, "pets", [(CAR, False), (DOG, True)])
    assert votes(store) == [(CAT, True), (CAR, False), (DOG, True)]
    times = [vote.judged_at for vote in read_judgements(store, "pets")]
    assert times == sorted(times)
    assert times[0].tzinfo is not None


def test_recommenders_are_apart_and_listed(store: Store) -> None:
    assert recommender_names(store) == []
    add_judgements(store, "pets", [(CAT, True)])
    add_judgements(store, "cars", [(CAT, False)])
    assert votes(store, "pets") == [(CAT, True)]
    assert recommender_names(store) == ["cars", "pets"]
    assert votes(store, "unknown") == []


def test_votes_are_taken_back_one_at_a_time(store: Store) -> None:
    add_judgements(store, "pets", [(CAT, True), (CAR, False)])
    undone, left = undo_judgement(store, "pets")
    assert undone is not None
    assert undone.content_id == CAR
    assert [vote.content_id for vote in left] == [CAT]
    undo_judgement(store, "pets")
    assert undo_judgement(store, "pets") == (None, [])
    assert undo_judgement(store, "new") == (None, [])
    assert votes(store) == []


def test_the_last_vote_on_an_image_counts_until_it_is_taken_back(store: Store) -> None:
    judgements = add_judgements(store, "pets", [(CAT, True), (CAR, False), (CAT, False)])
    assert list(votes_that_count(judgements).items()) == [(CAR, False), (CAT, False)]
    _, left = undo_judgement(store, "pets")
    assert votes_that_count(left) == {CAT: True, CAR: False}


@pytest.mark.parametrize("name", ["", "../etc", "a/b", ".hidden", "-x", "a" * 65, "a b", "ä"])
def test_a_name_that_is_no_file_name_everywhere_is_refused(store: Store, name: str) -> None:
    with pytest.raises(RecommendError, match="cannot name a recommender"):
        add_judgements(store, name, [(CAT, True)])
    with pytest.raises(RecommendError, match="cannot name a recommender"):
        read_judgements(store, name)
    with pytest.raises(RecommendError, match="cannot name a recommender"):
        undo_judgement(store, name)
    assert not store.home.exists()


def test_an_unknown_recommender_is_answered_with_the_known_ones(store: Store) -> None:
    with pytest.raises(RecommendError, match="none yet"):
        require_recommender(store, "cats")
    add_judgements(store, "pets", [(CAT, True)])
    with pytest.raises(RecommendError, match=r'no recommender "cats" \(recommenders: pets\)'):
        require_recommender(store, "cats")
    require_recommender(store, "pets")


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"no parquet at all" * 100])
def test_a_damaged_table_is_refused_kept_and_named(store: Store, damage: bytes) -> None:
    add_judgements(store, "pets", [(CAT, True)])
    table = store.judgements("pets")
    table.write_bytes(damage)
    with pytest.raises(StoreError, match=r"pets\.parquet: damaged.*it is kept"):
        add_judgements(store, "pets", [(DOG, True)])
    with pytest.raises(StoreError, match=r"pets\.parquet: damaged"):
        undo_judgement(store, "pets")
    assert table.read_bytes() == damage
    assert [str(finding.file) for finding in verify(store) if finding.problem] == [str(table)]


def test_votes_of_several_voters_at_once_are_all_kept(store: Store) -> None:
    ids = [content(str(number)) for number in range(24)]
    with ThreadPoolExecutor(8) as voters:
        list(voters.map(lambda each: add_judgements(store, "pets", [(each, True)]), ids))
    assert sorted(votes(store)) == sorted((each, True) for each in ids)


def test_voting_goes_on_while_an_index_is_built_and_its_start_takes_nothing_away(
    store: Store,
) -> None:
    with store.writing_user_data():
        half_written = store.judgements("pets").with_name(".tmp-0123456789ab-pets.parquet")
        half_written.touch()
        assert recommender_names(store) == []
        with store.locked():
            assert half_written.exists()
    with store.locked():
        add_judgements(store, "pets", [(CAT, True)])
    assert votes(store) == [(CAT, True)]
    assert not half_written.exists()


def test_a_vote_killed_half_way_leaves_the_former_votes(store: Store) -> None:
    add_judgements(store, "pets", [(CAT, True)])
    code = (
        "import os, signal; from pathlib import Path\n"
        "from retrieval_pipeline.recommend import votes\n"
        "from retrieval_pipeline.storage.store import Store\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"home = Store(Path({str(store.home)!r}))\n"
        f"votes.add_judgements(home, 'pets', [({DOG!r}, True)])"
    )
    child = subprocess.run([sys.executable, "-c", code], env=os.environ)
    assert child.returncode == -signal.SIGKILL
    assert votes(store) == [(CAT, True)]
    add_judgements(store, "pets", [(CAR, False)])
    assert votes(store) == [(CAT, True), (CAR, False)]
    assert sorted(path.name for path in store.judgements("pets").parent.iterdir()) == [
        "lock",
        "pets.parquet",
    ]
