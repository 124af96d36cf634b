import json
from pathlib import Path

import pytest

from retrieval_pipeline.errors import EvaluationError
from retrieval_pipeline.evaluation.labels import read_labelled

COCO = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "a dog "},
        {"id": 2, "image_id": 8, "caption": "a dog"},
        {"id": 3, "image_id": 8, "caption": "a cat"},
    ],
}
KARPATHY = {
    "images": [
        {"filename": "a.jpg", "sentences": [{"raw": "a dog"}]},
        {"filename": "b.jpg", "sentences": [{"raw": "a dog"}, {"raw": "a cat"}]},
    ]
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "q.toml",
            '[[queries]]\nquery = "a dog"\nrelevant = ["a.jpg", "b.jpg"]\n'
            '[[queries]]\nquery = "a cat"\nrelevant = "b.jpg"\n'
            '[[queries]]\nquery = "a dog"\nrelevant = ["b.jpg"]\n',
        ),
        ("q.csv", "\ufeffQuery,relevant,note\na dog,a.jpg,x\na dog,b.jpg,\na cat,b.jpg,\n"),
        (
            "q.jsonl",
            '{"query": "a dog", "relevant": ["a.jpg"]}\n\n{"query": "a dog", "relevant": "b.jpg"}\n'
            '{"query": "a cat", "relevant": ["b.jpg"]}\n',
        ),
        ("captions_val2017.json", json.dumps(COCO)),
        ("dataset_flickr30k.json", json.dumps(KARPATHY)),
        ("results.token", "a.jpg#0\ta dog\nb.jpg#0\ta dog\nb.jpg#1\ta cat\n"),
    ],
)
def test_every_format_gives_the_same_queries_each_once(
    tmp_path: Path, name: str, text: str
) -> None:
    file = tmp_path / name
    file.write_text(text, "utf-8")
    queries, entries = read_labelled(file)
    found = {query.text: query.relevant for query in queries}
    assert found == {"a dog": ("a.jpg", "b.jpg"), "a cat": ("b.jpg",)}
    assert entries == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.toml", "", "there is no query in it"),
        ("q.csv", "", 'must name the columns "query" and "relevant"'),
        ("q.jsonl", "", "there is no query in it"),
        ("q.csv", "query,relevant\n,a.jpg\n", 'line 2 has no "query" with words'),
        ("q.toml", '[[queries]]\nquery = "a"\n', 'query 1 has no "relevant"'),
        ("q.jsonl", '{"query": "a", "relevant": []}\n[]\n', 'line 2 has no "query"'),
        ("q.jsonl", "{", "q.jsonl: "),
        ("q.json", '{"annotations": [{"image_id": 1}]}', "not as COCO's captions are"),
        ("q.json", "[1]", "not as COCO's captions are"),
        ("q.token", "a.jpg a dog\n", "line 1 is no caption of Flickr30k"),
        ("q.xml", "", "must end in .toml"),
    ],
)
def test_a_file_that_cannot_be_used_says_where_and_why(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    file = tmp_path / name
    file.write_text(text, "utf-8")
    with pytest.raises(EvaluationError) as error:
        read_labelled(file)
    assert str(error.value).startswith(str(file))
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
