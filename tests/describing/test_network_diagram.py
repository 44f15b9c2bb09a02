from xml.etree import ElementTree

from library.describing.network_diagram import draw_network
from library.describing.network_summary import Description, LayerRow

ROWS = (
    LayerRow(1, "base/<odd>", "8 x 8 x 4", 1000, False),
    LayerRow(1, "base/other", "4 x 4 x 4", 24, False),
    LayerRow(2, "scores", "2", 10, True),
)


def test_each_block_is_a_box_named_and_colored():
    description = Description(ROWS, 1034, 10, 0, 0, ())
    root = ElementTree.fromstring(draw_network(description, "hub & more"))
    texts = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert texts == [
        "hub & more",
        "trained",
        "frozen",
        "base/<odd> … other",
        "1,024 parameters → 4 x 4 x 4",
        "scores",
        "10 parameters → 2",
    ]
    boxes = [each.attrib for each in root.iter() if each.tag.endswith("rect")][3:]
    assert [each["fill"] for each in boxes] == ["#8d99ae", "#2a9d8f"]
    assert int(boxes[0]["width"]) > int(boxes[1]["width"])
