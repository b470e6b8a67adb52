import os
import datetime
import errno
import random
import resource
import signal

import pytest

from ade_runner.spill import Spill


def sample_columns(height: int, seed: int = 1):
    rng = random.Random(seed)
    day = datetime.date(2024, 1, 1)
    return [
        list(range(height)),
        [f"person {rng.randrange(500)}" for _ in range(height)],
        [rng.choice([None, True, 1.5, "ä☃", day, datetime.time(1, 2), datetime.timedelta(3)]) for _ in range(height)],
    ]


def test_columns_come_back_as_they_went_in_in_any_order(tmp_path):
    with Spill(tmp_path / "s") as spill:
        batches = [sample_columns(height, height) for height in (1, 1000, 3)]
        assert [spill.append(batch) for batch in batches] == [0, 1, 2]
        assert spill.batches == 3
        for batch in (2, 0, 1):
            assert (spill.height(batch), spill.width(batch)) == (len(batches[batch][0]), 3)
            for column in (1, 0, 2):
                loaded = spill.column(batch, column)
                assert loaded == batches[batch][column]
                assert list(map(type, loaded)) == list(map(type, batches[batch][column]))


def test_a_batch_without_rows_or_columns_is_a_batch(tmp_path):
    with Spill(tmp_path / "s") as spill:
        spill.append([])
        spill.append([[], []])
        assert [(spill.height(i), spill.width(i)) for i in (0, 1)] == [(0, 0), (0, 2)]
        assert spill.column(1, 1) == []


def test_columns_of_unequal_length_are_refused(tmp_path):
    with Spill(tmp_path / "s") as spill, pytest.raises(ValueError):
        spill.append([[1], [1, 2]])


def test_closing_deletes_the_file_and_may_be_repeated(tmp_path):
    spill = Spill(tmp_path / "s")
    spill.append([[1, 2, 3]])
    spill.close()
    spill.close()
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_smaller_than_the_text_it_holds(tmp_path):
    columns = sample_columns(50_000)
    with Spill(tmp_path / "s") as spill:
        spill.append(columns)
        assert os.fstat(spill._file.fileno()).st_size < sum(len(text) for text in columns[1])


def test_a_full_disk_is_an_oserror_and_earlier_batches_stay_readable(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    rng = random.Random(7)
    with Spill(tmp_path / "s") as spill:
        spill.append([["kept"] * 10])
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
            with pytest.raises(OSError) as caught:
                spill.append([[rng.random() for _ in range(100_000)]])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        assert caught.value.errno == errno.EFBIG
        assert spill.batches == 1
        assert spill.column(0, 0) == ["kept"] * 10
        assert spill.append([["next"]]) == 1
        assert spill.column(1, 0) == ["next"]


@pytest.mark.parametrize("touch", [lambda store: store.column(0, 0), lambda store: store.append([[1]]), lambda store: store.close()])
def test_a_forked_copy_ends_where_it_touches_the_store(tmp_path, touch):
    with Spill(tmp_path / "s") as store:
        assert os.listdir(tmp_path) == []
        store.append([["a", "b"]])
        copy = os.fork()
        if copy == 0:
            touch(store)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 0
        assert store.column(0, 0) == ["a", "b"] and store.batches == 1
