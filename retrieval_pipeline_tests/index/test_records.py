import pyarrow as pa
import pytest

from retrieval_pipeline.index.items import ITEM_COLUMNS, Location
from retrieval_pipeline.index.records import IndexedFile, ItemRecord, read_records

COUNT = 10


def record(number: int) -> ItemRecord:
    files = tuple(
        IndexedFile(Location(source, f"{number}.jpg"), size=number, mtime_ns=7)
        for source in "ab"[: 1 + number % 2]
    )
    return ItemRecord(f"{number:032x}", files, width=number, height=2 * number, format="JPEG")


@pytest.fixture
def items() -> pa.Table:
    """Ten items in record batches of three; those with an odd number have two files."""
    rows = [
        {
            "content_id": each.content_id,
            "locations": [
                {
                    "source": file.location.source,
                    "path": file.location.path,
                    "size": file.size,
                    "mtime_ns": file.mtime_ns,
                }
                for file in each.files
            ],
            "width": each.width,
            "height": each.height,
            "format": each.format,
        }
        for each in map(record, range(COUNT))
    ]
    table = pa.Table.from_pylist(rows, schema=ITEM_COLUMNS)
    return pa.Table.from_batches(table.to_batches(max_chunksize=3))


@pytest.mark.parametrize("numbers", [[], [0], [9, 0, 3, 2, 3], list(range(COUNT))])
def test_records_come_in_the_order_asked_for_whatever_batch_they_are_in(
    items: pa.Table, numbers: list[int]
) -> None:
    assert read_records(items, numbers) == [record(number) for number in numbers]


def test_an_item_has_the_locations_of_its_files(items: pa.Table) -> None:
    assert read_records(items, [3])[0].locations == (Location("a", "3.jpg"), Location("b", "3.jpg"))
