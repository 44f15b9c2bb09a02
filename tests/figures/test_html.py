from library.figures.html import file_name, folded, meter, page, table, text, tile


def test_names_stay_text_whatever_is_in_them():
    assert text('<b>&"\n\u202e') == "&lt;b&gt;&amp;&quot;\\n\\u202e"
    hostile = "<script>alert(1)</script>"
    made = page(hostile, table((hostile,), [(text(hostile), "1")]), tile(hostile, hostile, hostile))
    assert hostile not in made + folded(hostile, "")
    assert made.count("&lt;script&gt;alert(1)") == 6


def test_a_files_name_may_break_behind_its_folders():
    assert file_name("a<b/c.png") == "a&lt;b/<wbr>c.png"


def test_a_page_forbids_itself_everything_outside():
    made = page("title", "<p>content</p>")
    assert "default-src 'none'" in made
    assert "width=device-width" in made
    assert "prefers-color-scheme: dark" in made
    assert "http://" not in made.replace("http-equiv", "")
    assert "https://" not in made


def test_a_meter_is_as_full_as_its_share():
    assert "width:25%" in meter(0.25)
    assert meter(None) == ""
