"""The review's page in a real browser, against the real server: every way to review, by keyboard
alone, on a desk and a phone, by day and by night. See test_review for the server."""

import hashlib
import re
import shutil
import signal
from pathlib import Path

import pytest
from conftest import barriers, free_port, reviewed

import flowerray
from flowerray.outputs import corrections
from flowerray.stores.folder import Folder

pytestmark = pytest.mark.slow

PAGE = Path(flowerray.__file__).parent / "review" / "page"
DESK, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
NEXT = "id => document.querySelector('.stage')?.dataset.id !== id"
SHOWN = ".stage[data-id] img"
WAIT = 60_000  # ms, of a busy machine


@pytest.fixture(scope="module")
def labelled(fast, sample, tmp_path_factory):
    """Labels of the sample's pile, with their features; a part is accepted."""
    place = tmp_path_factory.mktemp("review_page")
    flowerray.label(
        sample.pile,
        classifier=fast / "classifier",
        out=place / "pile of flowers",
        keep_features=place / "kept",
        min_confidence=0.6,
    )
    return place / "pile of flowers"


@pytest.fixture
def labels(labelled, tmp_path):
    """A copy of those labels, to decide on."""
    return Path(shutil.copytree(labelled, tmp_path / "labels"))


@pytest.fixture
def address(labels):
    with reviewed(labels) as (_, address):
        yield address


@pytest.fixture(scope="module")
def looked_at(labelled, fast, tmp_path_factory):
    """The address of a review that several tests look at, and decide little."""
    labels = shutil.copytree(labelled, tmp_path_factory.mktemp("looked_at") / "labels")
    with reviewed(labels, "--features", fast / "features") as (_, address):
        yield address


@pytest.fixture
def visit(browser):
    """Open a review as somebody, in a browser of their own; at the end, nothing was asked of
    another origin, and nothing complained of that the test didn't expect."""
    opened = []

    def open_page(address, who="ann", expects=None, **options):
        context = browser.new_context(**{"viewport": DESK, **options})
        page = context.new_page()
        page.set_default_timeout(WAIT)
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_selector("#who:focus")
        page.keyboard.type(who)
        page.keyboard.press("Enter")
        page.wait_for_selector(".modes")
        opened.append((context, said, asked, "/".join(address.split("/")[:3]), expects))
        return page

    yield open_page
    for context, said, asked, origin, expects in opened:
        assert [line for line in said if not (expects and expects in line)] == []
        assert {url for url in asked if not url.startswith((origin, "data:", "blob:"))} == set()
        context.close()


def shown(page):
    """The number of the photograph that is shown."""
    page.wait_for_selector(SHOWN)
    return int(page.get_attribute(".stage", "data-id"))


def press(page, key):
    """Press a key and wait for another photograph; its number."""
    before = shown(page)
    page.keyboard.press(key)
    until(page, NEXT, str(before))
    return shown(page)


def until(page, condition, argument=None):
    """Wait for a condition in the page, whose policy forbids playwright's own way to."""
    for _ in range(WAIT // 20):
        if page.evaluate(condition, argument):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never: {condition}")


def saved(page):
    """Wait until the server has confirmed all decisions."""
    until(page, "!Object.keys(localStorage).some((key) => key.includes('unsaved'))")


def told(page, name="api/pile?who=ann"):
    return page.evaluate("async (name) => (await fetch(name)).json()", name)


def go(page, view):
    page.evaluate("view => { location.hash = view }", view)


def fits(page):
    """Whether nothing reaches beyond the right edge."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def kept(labels):
    return {row["uri"]: row for row in corrections.kept(Folder(str(labels))).to_pylist()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_every_view_can_be_used_by_anybody(looked_at, visit, viewport, scheme):
    """No serious fault by axe-core, nothing cut off, no view that keys don't reach."""
    page = visit(looked_at, viewport=viewport, color_scheme=scheme)
    names = [mode["name"] for mode in told(page)["modes"]]
    assert {"queue", "suggest", "audit", "novel", "class", "everything"} <= set(names)
    assert barriers(page) == [] and fits(page)
    if page.locator("text=Draw a sample").count():
        page.fill("[name=number]", "5")
        page.keyboard.press("Enter")
        page.wait_for_selector("[aria-label$='one by one'][href='#/one/audit']")
    for mode in told(page)["modes"]:
        if mode["name"] == "class" or not mode["left"]:
            continue
        go(page, f"#/one/{mode['name']}")
        shown(page)
        assert barriers(page) == [] and fits(page), mode["name"]
        for button in page.locator(".panel button").all():
            box = button.bounding_box()
            assert box["y"] + box["height"] <= viewport["height"], mode["name"]
        if mode["name"] != "audit":
            go(page, f"#/grid/{mode['name']}")
            page.wait_for_selector(".tile")
            assert barriers(page) == [] and fits(page), mode["name"]
    go(page, "#/one/everything")
    shown(page)
    for key, what in (("?", "dialog[open]"), ("n", "[role=combobox]"), ("/", "[role=combobox]")):
        page.keyboard.press(key)
        page.wait_for_selector(what)
        assert barriers(page) == [] and fits(page)
        page.keyboard.press("Escape")
        page.wait_for_selector(what, state="detached")
    page.keyboard.press("m")
    page.wait_for_selector(".tile")
    assert "#/grid/like/" in page.url
    page.keyboard.press("a")
    assert barriers(page) == [] and fits(page)
    page.keyboard.press("o")
    page.wait_for_selector(f"dialog {SHOWN}")
    assert barriers(page) == []
    page.keyboard.press("Escape")
    go(page, "#/grid/class/rose")
    page.wait_for_selector("select")
    assert barriers(page) == [] and fits(page)
    go(page, "#/map")
    page.wait_for_selector(".plot canvas")
    assert barriers(page) == [] and fits(page)
    go(page, "#/teach")
    page.wait_for_selector(".teach .main-button:not([disabled])")
    assert barriers(page) == [] and fits(page)


def test_the_queue_is_gone_through_to_its_end_by_keyboard(address, labels, visit):
    page = visit(address)
    left = told(page)["waiting"]
    assert left >= 6
    page.keyboard.press("1")  # the first way: the least sure
    first = shown(page)
    question = page.inner_text(".question").rstrip("?").lower()
    second = press(page, "Enter")
    third = press(page, "0")
    fourth = press(page, "2")
    assert len({first, second, third, fourth}) == 4
    assert press(page, "ArrowRight") not in {first, second, third, fourth}
    assert press(page, "ArrowLeft") == fourth
    assert press(page, "ArrowLeft") == third
    assert "sunflower" in page.inner_text(".said")  # the second of the classes
    page.keyboard.press("ArrowRight")
    for _ in range(left - 4):
        shown(page)
        press(page, "Space")
    page.keyboard.press("Enter")
    page.wait_for_selector(".end h1")
    saved(page)
    assert told(page)["waiting"] == 0 and told(page)["yours"] == left
    page.wait_for_selector(".command code")
    assert f"{left} decided" in page.inner_text(".end")
    assert "flowerray accept" in page.inner_text(".command code >> nth=0")
    assert barriers(page) == []
    ids = {f"{first}": question, f"{second}": "none", f"{third}": "sunflower"}
    answers = kept(labels)
    assert len(answers) == left and {answer["who"] for answer in answers.values()} == {"ann"}
    uris = told_uris(page, ids)
    assert {uris[id]: answers[uris[id]]["label"] for id in ids} == {
        uris[id]: label for id, label in ids.items()
    }
    page.keyboard.press("u")
    shown(page)
    saved(page)
    assert told(page)["waiting"] == 1


def told_uris(page, ids):
    """Where the photographs of these numbers lie."""
    body = {"who": "ann", "mode": "everything", "grid": True, "number": 99}
    answer = page.evaluate(
        """async (body) => (await fetch("api/next", {method: "POST", body: JSON.stringify(body),
            headers: {"content-type": "application/json"}})).json()""",
        {**body, "ids": [int(id) for id in ids]},
    )
    return {str(card["id"]): card["uri"] for card in answer["cards"]}


def test_a_decision_is_undone_and_made_anew(address, labels, visit):
    page = visit(address)
    page.keyboard.press("1")
    first = shown(page)
    second = press(page, "1")
    assert press(page, "u") == first
    saved(page)
    assert told(page)["decided"] == 0
    assert press(page, "3") == second
    saved(page)
    assert [answer["label"] for answer in kept(labels).values()] == ["tulip"]
    press(page, "u")
    page.keyboard.press("u")  # nothing is left: nothing happens
    until(page, "document.querySelector('[aria-live]').textContent.startsWith('Nothing is left')")
    assert shown(page) == first


def test_a_name_is_typed_without_losing_the_keys(address, labels, visit):
    page = visit(address)
    page.keyboard.press("1")
    first = shown(page)
    page.keyboard.press("n")
    page.keyboard.type("1 daisy 0 u")  # keys that mean something outside
    assert page.inner_text("[role=option] >> nth=0") == "new class 1 daisy 0 u"
    page.keyboard.press("Escape")
    assert shown(page) == first
    page.keyboard.press("n")
    page.keyboard.type("daisy")
    second = press(page, "Enter")
    assert "daisy" in page.inner_text("[aria-keyshortcuts='4']")
    page.keyboard.press("/")
    page.keyboard.type("tul")
    assert page.locator("[role=option]").all_inner_texts() == ["tulip"]
    third = press(page, "Enter")
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    fourth = press(page, "4")
    assert len({first, second, third, fourth}) == 4
    saved(page)
    uris = told_uris(page, [first, second, third])
    answers = kept(labels)
    said = [answers[uris[str(id)]]["label"] for id in (first, second, third)]
    assert said == ["daisy", "tulip", "daisy"]


def test_with_many_classes_some_have_digits_and_all_are_found(address, visit):
    page = visit(address)
    page.keyboard.press("1")
    shown(page)
    for i in range(7):  # beside rose, sunflower and tulip
        page.keyboard.press("n")
        page.keyboard.type(f"stranger {i}")
        press(page, "Enter")
    assert page.locator(".choices [aria-keyshortcuts='/']").count() == 1
    names = page.locator(".choices .choice > bdi").all_inner_texts()
    assert len(names) == 10 and {"rose", "sunflower", "tulip", "none of these"} < set(names)
    assert "stranger 6" in names and "stranger 3" not in names  # the last three stay at hand
    page.keyboard.press("/")
    page.keyboard.type("3")
    assert page.locator("[role=option]").all_inner_texts() == ["stranger 3"]
    press(page, "Enter")
    saved(page)
    assert told(page)["decided"] == 8


def test_a_key_held_down_decides_once(address, visit):
    page = visit(address)
    page.keyboard.press("1")
    first = shown(page)
    page.keyboard.down("Enter")
    until(page, NEXT, str(first))
    for _ in range(5):
        page.keyboard.down("Enter")  # which the browser calls a repetition
    page.keyboard.up("Enter")
    saved(page)
    assert told(page)["decided"] == 1


def test_a_photograph_that_cant_be_shown_is_told_and_decided(address, visit):
    page = visit(address, expects="Failed to load resource")
    page.route("**/photo/**", lambda route: route.fulfill(status=404, body="a broken JPEG"))
    page.keyboard.press("1")
    page.wait_for_selector(".stage >> text=can't be shown: a broken JPEG")
    assert barriers(page) == []
    page.keyboard.press("0")
    saved(page)
    assert told(page)["decided"] == 1


def test_an_audit_leads_nobody(address, visit):
    page = visit(address)
    page.fill("[name=number]", "4")
    page.keyboard.press("Enter")
    page.wait_for_selector("[href='#/one/audit']")
    go(page, "#/one/audit")
    first = shown(page)
    assert page.inner_text(".question") == "What is this?"
    assert page.locator(".bar, .share, .suggested").count() == 0
    assert "labelled" not in page.get_attribute(SHOWN, "alt")
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    page.wait_for_timeout(300)
    assert shown(page) == first and told(page)["decided"] == 0
    for _ in range(3):
        press(page, "1")
    page.keyboard.press("1")
    page.wait_for_selector(".bound")
    assert "4 judged" in page.inner_text(".bound")


def test_many_are_one_decision(address, labels, visit):
    page = visit(address)
    posts = []
    page.on("request", lambda asked: posts.append(asked.url) if "decide" in asked.url else None)
    go(page, "#/grid/everything")
    page.wait_for_selector(".tile >> nth=8")
    page.keyboard.press("Enter")
    page.keyboard.press("1")
    assert "Nothing is selected" in page.inner_text(".selected")
    assert told(page)["decided"] == 0 and posts == []
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    page.wait_for_selector("text=3 selected")
    page.keyboard.press("1")
    page.wait_for_selector(".tile.decided >> nth=2")
    saved(page)
    assert told(page)["decided"] == 3 and len(posts) == 1
    assert page.inner_text(".tile >> nth=0 >> .badge.human") == "rose · ann"
    page.keyboard.press("u")
    page.wait_for_selector(".tile.decided", state="detached")
    saved(page)
    assert told(page)["decided"] == 0
    page.keyboard.press("Escape")
    page.click(".tile >> nth=1")
    page.click(".tile >> nth=4", modifiers=["Shift"])
    page.wait_for_selector("text=4 selected")
    page.keyboard.press("Escape")
    start, end = (page.locator(f".tile >> nth={i}").bounding_box() for i in (0, 2))
    page.mouse.move(start["x"] - 4, start["y"] + 4)
    page.mouse.down()
    page.mouse.move(end["x"] + 20, end["y"] + 60, steps=8)
    page.mouse.up()
    page.wait_for_selector("text=3 selected")
    page.click(".deciding >> text=none of these")
    saved(page)
    assert [answer["label"] for answer in kept(labels).values()] == ["none"] * 3
    page.dblclick(".tile >> nth=6")
    page.wait_for_selector(f"dialog {SHOWN}")
    page.keyboard.press("2")
    page.keyboard.press("Escape")
    saved(page)
    assert told(page)["decided"] == 4
    page.keyboard.press("ArrowRight")  # the tiles have the focus again
    assert page.evaluate("document.activeElement.className") == "tiles"


def test_a_reload_goes_on(address, visit):
    page = visit(address)
    page.keyboard.press("1")
    first = shown(page)
    second = press(page, "1")
    third = press(page, "1")
    saved(page)
    page.reload()
    assert shown(page) == third  # and nobody is asked for a name
    assert told(page)["yours"] == 2 and len({first, second, third}) == 3


def test_two_never_get_the_same_photograph(address, visit):
    pages = {who: visit(address, who) for who in ("ann", "bob")}
    seen = {who: [] for who in pages}
    for page in pages.values():
        page.keyboard.press("1")
    total = told(pages["ann"])["waiting"]
    while any(page.locator(".end").count() == 0 for page in pages.values()):
        for who, page in pages.items():
            page.wait_for_selector(f"{SHOWN}, .end")
            if page.locator(".end").count() == 0:
                seen[who].append(shown(page))
                page.keyboard.press("1")
                until(page, NEXT, str(seen[who][-1]))
    for page in pages.values():
        saved(page)
    assert len(seen["ann"]) > 1 and len(seen["bob"]) > 1
    assert len({*seen["ann"], *seen["bob"]}) == len(seen["ann"]) + len(seen["bob"]) == total
    assert {who: told(page, f"api/pile?who={who}")["yours"] for who, page in pages.items()} == {
        who: len(ids) for who, ids in seen.items()
    }


def test_decisions_survive_a_kill_of_the_server(labels, visit):
    port = str(free_port())
    with reviewed(labels, "--port", port) as (server, address):
        page = visit(address, expects="Failed to load resource")
        page.keyboard.press("1")
        shown(page)
        for _ in range(2):
            press(page, "1")
        saved(page)
        server.send_signal(signal.SIGKILL)
        server.wait()
        for _ in range(3):
            press(page, "2")  # the next photographs are at hand
        page.wait_for_selector("text=3 not saved yet")
        assert "doesn't answer" in page.inner_text("[role=alert]")
        assert barriers(page) == []
    with reviewed(labels, "--port", port) as (_, address):
        page.goto(address)
        page.wait_for_selector(".modes")
        saved(page)
        assert told(page)["yours"] == 5
        page.goto(address + "#/one/queue")
        shown(page)
    labels_said = [answer["label"] for answer in kept(labels).values()]
    assert sorted(labels_said) == ["rose"] * 2 + ["sunflower"] * 3


def test_an_absence_of_the_server_is_told_and_mended(address, visit):
    page = visit(address, expects="Failed to load resource")
    page.keyboard.press("1")
    shown(page)
    page.context.set_offline(True)
    press(page, "1")
    page.wait_for_selector("text=1 not saved yet")
    press(page, "1")
    page.context.set_offline(False)
    saved(page)
    assert page.inner_text(".unsaved") == "" and page.inner_text("[role=alert]") == ""
    assert told(page)["decided"] == 2


def test_a_refused_decision_is_kept_until_somebody_drops_it(address, visit):
    page = visit(address, expects="Failed to load resource")
    page.keyboard.press("1")
    shown(page)
    refusal = {"status": 400, "content_type": "application/json", "body": '{"error": "not now"}'}
    page.route("**/api/decide", lambda route: route.fulfill(**refusal))
    press(page, "1")
    page.wait_for_selector("[role=alert] >> text=not now")
    press(page, "2")
    page.wait_for_selector("text=2 not saved yet")
    page.unroute("**/api/decide")
    page.click("text=Drop this decision")
    saved(page)
    assert told(page)["decided"] == 1


def test_a_photograph_is_looked_at_closely(address, visit):
    page = visit(address)
    page.keyboard.press("1")
    id = shown(page)
    page.keyboard.press("z")
    page.wait_for_selector(f".stage.zoomed img[src='photo/{id}']")  # the original
    before = page.get_attribute(".sheet", "style")
    page.keyboard.press("ArrowLeft")
    until(
        page, "before => document.querySelector('.sheet').getAttribute('style') != before", before
    )
    assert shown(page) == id  # the arrows move the photograph, not on
    page.keyboard.press("Escape")
    page.wait_for_selector(".stage.zoomed", state="detached")
    page.click(".stage")
    page.wait_for_selector(".stage.zoomed")
    page.click(".stage")
    page.wait_for_selector(".stage.zoomed", state="detached")


def test_a_lasso_on_the_map_selects_for_the_grid(looked_at, visit):
    page = visit(looked_at)
    go(page, "#/map")
    page.wait_for_selector(".plot canvas")
    page.wait_for_selector(".legend li")
    box = page.locator(".plot").bounding_box()
    corners = [(0.01, 0.01), (0.6, 0.01), (0.6, 0.99), (0.01, 0.99), (0.01, 0.01)]
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=12)
    page.mouse.up()
    button = page.wait_for_selector("text=/Show these [0-9]+ in the grid/")
    # Read and pressed in one, as the number grows until the lasso is closed.
    said = button.evaluate("(button) => { button.click(); return button.textContent }")
    number = int(re.search(r"\d+", said)[0])
    assert 0 < number < told(page)["photographs"]
    page.wait_for_selector(".tile")
    assert page.locator(".tile").count() == number
    go(page, "#/map")
    page.wait_for_selector(".plot canvas")
    page.wait_for_selector(".legend li")
    for _ in range(12):  # by keyboard: a circle that grows until it holds all
        page.keyboard.press("+")
    page.keyboard.press("Space")
    page.wait_for_selector("text=/Show these [0-9]+ in the grid/")
    page.keyboard.press("Enter")
    page.wait_for_selector(".tile")
    for colour in ("confidence", "novelty"):
        go(page, "#/map")
        page.click(f"text={colour}")
        page.wait_for_selector(f"[aria-label='Colours: {colour}'] li")


def test_train_and_label_again_from_the_page(labels, fast, visit):
    with reviewed(labels, "--features", fast / "features") as (_, address):
        page = visit(address)
        go(page, "#/grid/class/rose")
        page.wait_for_selector(".tile")
        page.keyboard.press("a")
        page.keyboard.press("3")
        saved(page)
        decided = told(page)["decided"]
        go(page, "#/teach")
        page.click("main >> text=Train and label again >> nth=-1")
        page.wait_for_selector(".changed", timeout=5 * WAIT)
        assert barriers(page) == []
        pile = told(page)
        assert pile["round"] == 2 and pile["decided"] == decided
        assert "Round 2" in page.inner_text(".changed")
        page.click("text=Go on with the")
        page.wait_for_selector(f"{SHOWN}, .end")


def test_what_check_doubts_is_decided_by_keyboard(labels, sample, visit, tmp_path):
    wrong = sorted(sample.labelled.rglob("*.jpg"))[0]
    findings = tmp_path / "findings.csv"
    findings.write_text(
        "check,uri,other_uri,label,suggested_label,score,detail,group\n"
        f"mislabelled,{wrong},,{wrong.parent.name},tulip,0.93,,\n"
    )
    with reviewed(labels, "--findings", findings) as (_, address):
        page = visit(address)
        go(page, "/one/suspects")
        shown(page)
        assert wrong.parent.name in page.inner_text(".panel").lower()
        number = page.inner_text("button.choice:has-text('tulip') kbd >> nth=0")
        page.keyboard.press(number)
        page.wait_for_selector("text=That was the last one")
        saved(page)
    answers = corrections.kept(Folder.at(labels)).to_pylist()
    assert [(one["uri"], one["label"]) for one in answers] == [(str(wrong), "tulip")]


@pytest.mark.parametrize(
    ("button", "then"), [("Open the map", "Map of the pile"), ("See what will run", "Train and")]
)
def test_tab_leads_everywhere(looked_at, visit, button, then):
    page = visit(looked_at)
    focused = "document.activeElement?.textContent.trim()"
    for _ in range(60):
        if page.evaluate(focused) == button:
            break
        page.keyboard.press("Tab")
    assert page.evaluate(focused) == button
    page.keyboard.press("Enter")
    page.wait_for_selector(f"header >> text={then}")


def test_what_is_vendored_is_what_it_says():
    said = (PAGE / "vendor" / "README.md").read_text()
    rows = re.findall(r"^\| `(\S+)` .*`([0-9a-f]{64})` \|$", said, re.MULTILINE)
    files = {str(path.relative_to(PAGE / "vendor")) for path in PAGE.glob("vendor/*/*.js")}
    assert {name for name, _ in rows} == files
    for name, digest in rows:
        assert hashlib.sha256((PAGE / "vendor" / name).read_bytes()).hexdigest() == digest
        assert (PAGE / "vendor" / name).with_name("LICENSE").is_file()
