"""Which requests share a scale, and the file beside a head's weights."""

import json

import pytest

from specdec.drafting import (  # fmt: skip
    BUCKETS,
    CALIBRATION,
    NEUTRAL,
    Bucket,
    Calibration,
    bucket_of,
    load_calibration,
    save_calibration,
)
from specdec.errors import SpecdecError

SCALES = Calibration(tuple(1 + i / 100 for i in range(len(BUCKETS))))


@pytest.mark.parametrize(
    ("parameters", "bucket"),
    [
        ({"temperature": 1.0}, Bucket(1.0, False)),
        ({"temperature": 0.01}, Bucket(0.3, False)),
        ({"temperature": 0.68}, Bucket(0.6, False)),
        ({"temperature": 0.7}, Bucket(0.8, False)),  # nearest by ratio
        ({"temperature": 5.0, "top_k": 3}, Bucket(1.3, True)),
        ({"temperature": 0.6, "top_p": 0.9}, Bucket(0.6, True)),
        ({"temperature": 0.6, "min_p": 0.1}, Bucket(0.6, True)),
    ],
)
def test_requests_share_the_scale_of_their_bucket(parameters, bucket):
    place = bucket_of(**parameters)
    assert place is not None and BUCKETS[place] == bucket
    assert SCALES.scale(**parameters) == SCALES.scales[place]


def test_greedy_requests_have_none():
    assert bucket_of(0.0, top_p=0.9) is None and SCALES.scale(0.0) == 1.0


def test_the_file_gives_back_what_was_saved(tmp_path):
    assert load_calibration(tmp_path) == NEUTRAL
    save_calibration(SCALES, tmp_path)
    assert load_calibration(tmp_path) == SCALES


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 2}, "is not of version 1"),
        ({"temperatures": [1.0]}, "has temperatures [1.0], not [0.3"),
        ({"plain": [1.0]}, "has 'plain' [1.0], not 6 scales"),
        ({"filtered": [1, 1, 1, 1, 1, 0]}, "has the scale 0 in 'filtered', not a number from 0.5 to 2.0"),
        ({"plain": [1, 1, "1", 1, 1, 1]}, "has the scale '1' in 'plain'"),
        ({"plain": [1, 1, float("nan"), 1, 1, 1]}, "has the scale nan in 'plain'"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, change, sentence):
    save_calibration(NEUTRAL, tmp_path)
    path = tmp_path / CALIBRATION
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SpecdecError) as error:
        load_calibration(tmp_path)
    assert sentence in str(error.value) and str(path) in str(error.value)
    assert "specdec head calibrate" in str(error.value)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / CALIBRATION).write_text('{"version": 1')
    with pytest.raises(SpecdecError, match="cannot be read"):
        load_calibration(tmp_path)
