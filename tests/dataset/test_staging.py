from library.dataset.encode_record import Task
from library.dataset.file_index import FileIndex
from library.dataset.locations import StreamLocation
from library.dataset.records import FRAMING_BYTES, Record, frame
from library.dataset.shards import ShardWriter, Stage, WorkFolder
from library.dataset.sources.base import LabeledFile


def test_records_of_a_stream_get_the_order_of_the_listing(tmp_path):
    files = [LabeledFile(f"cat/{n}", "cat", n, n, StreamLocation()) for n in range(30)]
    listing = FileIndex(files)
    assert listing.is_streamed
    work = WorkFolder(tmp_path, "train", "plan")
    stage = Stage(work)
    framed = {}
    with ShardWriter(stage.work, lambda files, size, position: files >= 4) as writer:
        for number, file in enumerate(files):
            framed[file.name] = frame(Record(b"x" * number, 1, 1, 0, "cat", file.name))
            if number == 11:
                writer.leave_out(Task((), 0, "cat", file.name), "is bad")
            else:
                writer.write(framed[file.name], "cat")
    # As after a kill: what was staged is found again.
    again = Stage(WorkFolder(tmp_path, "train", "plan"))
    assert again.work.position == 30
    with ShardWriter(work, lambda files, size, position: files >= 10) as writer:
        again.move(listing, writer)
    content = b"".join(work.shard_path(number).read_bytes() for number in range(3))
    expected = [listing[number].name for number in range(30)]
    assert content == b"".join(framed[name] for name in expected if name != "cat/11")
    note = {"number": expected.index("cat/11"), "file": "cat/11", "label": "cat"}
    assert work.left_out == [note | {"reason": "is bad"}]
    assert len(framed["cat/0"]) > FRAMING_BYTES
    listing.close()


def test_a_piece_ends_at_its_count_or_size():
    assert not Stage.ends_after(1023, 1, 0)
    assert Stage.ends_after(1024, 1, 0)
    assert Stage.ends_after(1, 64 << 20, 0)
