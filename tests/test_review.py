"""The review's server: who gets what, what is kept, and who is refused. See test_review_page for
the page itself, in a browser."""

import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import urllib3
from conftest import reviewed
from PIL import Image

import flowerray
from flowerray import FlowerrayError
from flowerray.outputs import corrections
from flowerray.review.desk import FILES, HELD_SECONDS, Desk
from flowerray.review.pile import Pile
from flowerray.review.session import Session
from flowerray.stores.folder import Folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def labelled(fast, sample, tmp_path_factory):
    """Labels of the sample's pile with their features, and what they were trained on."""
    place = tmp_path_factory.mktemp("review")
    flowerray.label(
        *(sample.pile,),
        classifier=fast / "classifier",
        out=place / "labels",
        keep_features=place / "kept",
        min_confidence=0.6,
    )
    return place / "labels", fast / "features"


@pytest.fixture
def labels(labelled, tmp_path):
    """A copy of those labels, to decide on."""
    return Path(shutil.copytree(labelled[0], tmp_path / "labels"))


def ask(address, name, body=None, **headers):
    """The status and what was answered."""
    answer = urllib3.request(
        "GET" if body is None else "POST",
        address + name,
        body=None if body is None else json.dumps(body),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        retries=False,
        timeout=60,
    )
    return answer.status, answer.data


def told(address, name, body=None):
    status, data = ask(address, name, body)
    assert status == 200, data
    return json.loads(data)


def rows_of(labels):
    table = ds.dataset(str(labels / "shards")).to_table().sort_by("image_id")
    return {row["uri"]: row for row in table.to_pylist()}


def test_who_lacks_the_address_or_comes_from_elsewhere_is_refused(labels):
    with reviewed(labels) as (_, address):
        root, token = re.fullmatch(r"(http://[^/]+)/(.+)/", address).groups()
        assert len(token) >= 32
        names = ("", "static/app.js", "api/pile", "photo/0", "photo/0?side=64")
        for name in names:
            assert ask(address, name)[0] == 200
            for wrong in (f"{root}/", f"{root}/{token[:-1]}/", f"{root}/{'x' * len(token)}/"):
                assert ask(wrong, name)[0] == 403
            for header in (
                {"Origin": "http://evil.example"},
                {"Origin": "null"},
                {"Host": "evil.example"},
                {"Sec_Fetch_Site": "cross-site"},
                {"Sec_Fetch_Site": "same-site"},
            ):
                assert ask(address, name, **header)[0] == 403, header
        body = {"who": "eve", "ids": [0], "label": "rose"}
        assert ask(address, "api/decide", body, Origin="http://evil.example")[0] == 403
        assert ask(address, "", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200
        assert told(address, "api/pile")["decided"] == 0


def test_nothing_but_the_page_and_the_piles_photographs_is_reviewed(labels, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    with reviewed(labels) as (_, address):
        ids = [row["image_id"] for row in rows_of(labels).values()]
        outside = (
            *(
                f"photo/{max(ids) + 1}",
                "photo/-1",
                f"photo/{'9' * 40}",
                "photo/..%2f..%2fsecret.jpg",
            ),
            *("photo//etc/passwd", "photo/0/../../secret.jpg", "static/../server.py"),
            *("static/%2e%2e/server.py", "static//etc/passwd", "static/..%2fserver.py", "static/"),
            *("run.json", "api/", "api/nothing", "docs", "openapi.json"),
        )
        for name in outside:
            connection = urllib3.HTTPConnectionPool(*address.split("/")[2].split(":"))
            path = "/" + address.split("/", 3)[3] + name  # as it stands: no client tidies it
            answer = connection.urlopen("GET", path, retries=False, preload_content=True)
            assert answer.status in (403, 404), name
            assert b"secret" not in answer.data and b"import" not in answer.data


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("next", {}),
        ("next", {"who": " "}),
        ("next", {"who": "x" * 200}),
        ("next", {"who": "ann", "mode": "nothing"}),
        ("next", {"who": "ann", "number": "many"}),
        ("next", {"who": "ann", "number": 1e300}),
        ("next", {"who": "ann", "like": 10**9}),
        ("next", {"who": "ann", "ids": "all"}),
        ("decide", {"who": "ann", "ids": [], "label": "rose"}),
        ("decide", {"who": "ann", "ids": [10**9], "label": "rose"}),
        ("decide", {"who": "ann", "ids": [0, "0"], "label": "rose"}),
        ("decide", {"who": "ann", "ids": [0], "label": " "}),
        ("decide", {"who": "ann", "ids": [0], "label": None}),
        ("decide", {"who": "ann", "ids": [0], "label": "x" * 5000}),
        ("undo", {"who": 3}),
        ("audit", {"number": -1}),
        ("audit", {"number": 0}),
        ("teach", {"who": "ann"}),
    ],
)
def test_what_makes_no_sense_gets_one_line(labelled, name, body):
    address = _shared(labelled)
    status, data = ask(address, f"api/{name}", body)
    assert status in (400, 409)
    (line,) = json.loads(data)["error"].splitlines()
    assert line and "Traceback" not in line


_servers: list = []


def _shared(labelled):
    """One server for all requests that change nothing."""
    if not _servers:
        _servers.append(reviewed(labelled[0]))
        _servers.append(_servers[0].__enter__())
    return _servers[1][1]


@pytest.fixture(scope="module", autouse=True)
def _shared_ends():
    yield
    if _servers:
        _servers[0].__exit__(None, None, None)
        _servers.clear()


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b"\xff", b"3", b'{"who": "ann"', b"x" * (2 << 20)]
)
def test_what_is_no_json_object_gets_one_line(labelled, body):
    answer = urllib3.request("POST", _shared(labelled) + "api/decide", body=body, retries=False)
    assert answer.status == 400
    assert len(json.loads(answer.data)["error"].splitlines()) == 1


def test_a_decision_survives_a_kill(labels):
    before = rows_of(labels)
    with reviewed(labels) as (server, address):
        cards = told(address, "api/next", {"who": "ann", "mode": "queue", "number": 3})["cards"]
        for card, label in zip(cards, ("none", "lily", "rose"), strict=True):
            told(address, "api/decide", {"who": "ann", "ids": [card["id"]], "label": label})
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
    with reviewed(labels) as (server, address):
        assert told(address, "api/pile?who=ann")["yours"] == 3
        again = told(address, "api/next", {"who": "bob", "mode": "queue", "number": 200})["cards"]
        assert not {card["id"] for card in again} & {card["id"] for card in cards}
        server.send_signal(signal.SIGINT)
        out, _ = server.communicate(timeout=60)
    assert server.returncode == 0
    done = json.loads(out)
    assert done["decided"] == 3 and done["reviewers"] == {"ann": 3}
    assert done["next"][0].startswith("flowerray accept ")
    assert rows_of(labels) == before  # labels change when they are decided, by accept
    assert flowerray.accept(labels).human == 3
    after = rows_of(labels)
    assert [after[card["uri"]]["label"] for card in cards] == [None, "lily", "rose"]
    assert {after[card["uri"]]["source"] for card in cards} == {"human"}


def test_reviewers_at_once_get_different_photographs(labels):
    with reviewed(labels) as (_, address):
        everything = {row["image_id"] for row in rows_of(labels).values() if not row["error"]}

        def review(who):
            got, last = [], None
            while last != []:
                asked = {"who": who, "mode": "everything", "number": 3, "held": got}
                last = [card["id"] for card in told(address, "api/next", asked)["cards"]]
                got += last
            return got

        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(review, ("ann", "bob", "cid", "dot")))
        assert sorted(itertools.chain(*got)) == sorted(everything)
        assert told(address, "api/next", {"who": "eve", "mode": "everything"})["cards"] == []
        told(address, "api/release", {"who": "bob"})
        asked = {"who": "eve", "mode": "everything", "number": 200}
        assert {c["id"] for c in told(address, "api/next", asked)["cards"]} == set(got[1])


def test_what_a_reviewer_forgets_is_anybodys_after_a_while(labels):
    now = [0.0]
    desk = Desk(Pile(str(labels)), 1, clock=lambda: now[0])
    order = np.flatnonzero(desk.pile.usable)[:4]
    first, _ = desk.hand_out("ann", order, 2, [])
    assert first == order[:2].tolist()
    now[0] = HELD_SECONDS - 1
    assert desk.hand_out("ann", order, 0, first[:1])[0] == []  # a word of the first alone
    now[0] = HELD_SECONDS + 1
    assert desk.hand_out("bob", order, 4, [])[0] == order[1:].tolist()


def test_undo_takes_back_one_decision_after_another(labels):
    desk = Desk(Pile(str(labels)), 1)
    rows = np.flatnonzero(desk.pile.usable)[:4].tolist()
    desk.decide("ann", rows[:1], "rose", False)
    desk.decide("ann", rows, "lily", False)
    desk.decide("bob", rows[3:], "none", False)
    assert desk.undo("ann") == rows  # of four photographs at once
    again = Desk(Pile(str(labels)), 1)
    assert {row: one.label for row, one in again.decided.items()} == {rows[0]: "rose"}
    assert again.undo("ann") == rows[:1] and again.undo("ann") == []  # in another sitting
    assert desk.undo("ann") == rows[:1]
    assert desk.undo("ann") == [] and not desk.decided
    desk.take_in()
    assert not len(corrections.kept(desk.pile.output.folder))


def test_answers_are_put_together_and_none_is_lost_to_another_writer(labels):
    desk = Desk(Pile(str(labels)), 1)
    rows = itertools.cycle(np.flatnonzero(desk.pile.usable).tolist())
    said = {}
    for number in range(2 * FILES + 5):
        row = next(rows)
        desk.decide("ann", [row], said.setdefault(row, "rose" if number % 2 else "none"), False)
        if number == FILES + 7:
            flowerray.accept(labels)  # takes in what is there, beside the review
    folder = Folder.at(labels)
    assert len(folder.names(corrections.ADDED)) <= FILES
    kept = corrections.kept(folder)
    assert dict(zip(kept["uri"].to_pylist(), kept["label"].to_pylist(), strict=True)) == {
        desk.pile.detail(row).uri: label for row, label in said.items()
    }
    assert set(kept["who"].to_pylist()) == {"ann"} and set(kept["round"].to_pylist()) == {1}


def test_an_audit_is_blind_and_its_bound_is_the_commands(labels, sample):
    truth = dict(line.split(",") for line in sample.truth.read_text().splitlines()[1:])
    with reviewed(labels) as (server, address):
        assert told(address, "api/audit", {"number": 12})["drawn"] > 8
        assert ask(address, "api/audit", {"number": 12})[0] == 409  # judge that first
        asked = {"who": "ann", "mode": "audit", "number": 100}
        cards = told(address, "api/next", asked)["cards"]
        for card in cards:
            assert card["blind"] and card["label"] is card["confidence"] is card["novelty"] is None
            assert card["top"] == []
            label = truth[card["name"]]
            body = {"who": "ann", "mode": "audit", "ids": [card["id"]], "label": label}
            left = told(address, "api/decide", body)["left"]
        assert left == 0
        end = told(address, "api/end?who=ann")
        server.send_signal(signal.SIGINT)
        server.wait(60)
    done = flowerray.audit(labels, judged=labels / "corrections.parquet")
    assert (
        f"at least {done.precision.bound:.1%} of {done.precision.labels:,}" in end["bound"]["line"]
    )
    assert f"{len(cards)} judged, {done.precision.wrong} wrong" in end["bound"]["line"]
    assert any(command.startswith("flowerray audit ") for command in end["commands"])


def test_train_and_label_again_keeps_what_was_said(labelled, labels, sample):
    truth = dict(line.split(",") for line in sample.truth.read_text().splitlines()[1:])
    with reviewed(labels, "--features", str(labelled[1])) as (_, address):
        assert ask(address, "api/teach", {"who": "ann"})[0] == 409  # nothing was said
        command = told(address, "api/teach")["command"]
        assert command.startswith("flowerray train ") and " && flowerray label " in command
        cards = told(address, "api/next", {"who": "ann", "mode": "everything", "number": 12})
        for card in cards["cards"]:
            label = truth[card["name"]]
            told(address, "api/decide", {"who": "ann", "ids": [card["id"]], "label": label})
        assert told(address, "api/teach", {"who": "ann"})["state"] == "running"
        assert ask(address, "api/teach", {"who": "bob"})[0] == 409
        late = told(address, "api/next", {"who": "bob", "mode": "everything", "number": 1})["cards"]
        told(address, "api/decide", {"who": "bob", "ids": [late[0]["id"]], "label": "none"})
        while (state := told(address, "api/teach"))["state"] == "running":
            pass
        assert state["state"] == "done", state
        assert state["changed"]["human"] == 12 and state["changed"]["round"] == 2
        pile = told(address, "api/pile?who=bob")
        assert pile["round"] == 2 and pile["decided"] == 13 and pile["yours"] == 1
        assert pile["out"].endswith("labels-rounds/2/labels")
    assert flowerray.verify(f"{labels}-rounds/2/labels").whole
    again = Session(str(labels))  # opens what came last
    assert again.round.number == 2 and len(again.round.desk.decided) == 13


def test_a_round_that_fails_says_why(labels, tmp_path):
    session = Session(str(labels), features=str(tmp_path / "nothing"))
    session.decide({"who": "ann", "ids": [int(session.round.pile.ids[0])], "label": "rose"})
    session.teach({"who": "ann"})
    while (told := session.teaching({}))["state"] == "running":
        pass
    assert told["state"] == "failed" and "no features in" in told["line"]
    assert session.round.number == 1 and session.teach({"who": "ann"})["state"] == "running"
    session.close()


def test_photographs_come_as_they_are_and_smaller(labels):
    with reviewed(labels) as (_, address):
        for row in rows_of(labels).values():
            status, data = ask(address, f"photo/{row['image_id']}?side=64")
            if row["error"]:
                assert status == 404 and len(data.splitlines()) == 1
                continue
            assert status == 200
            assert ask(address, f"photo/{row['image_id']}")[1] == Path(row["uri"]).read_bytes()
            with Image.open(io.BytesIO(data)) as picture:
                assert picture.format == "JPEG" and max(picture.size) == 64


def test_what_browsers_do_not_show_is_shown_to_them(fast, sample, tmp_path):
    pile = tmp_path / "pile"
    pile.mkdir()
    with Image.open(next(sample.pile.glob("*.jpg"))) as photograph:
        photograph.save(pile / "a.tiff")
        photograph.save(pile / "b.png")
    flowerray.label(pile, classifier=fast / "classifier", out=tmp_path / "labels")
    with reviewed(tmp_path / "labels") as (_, address):
        for number, found in enumerate(("JPEG", "PNG")):
            with Image.open(io.BytesIO(ask(address, f"photo/{number}")[1])) as shown:
                assert shown.format == found


def test_labels_and_photographs_in_a_bucket(fast, sample, s3, local_ray, tmp_path):
    for path in sorted(sample.pile.glob("*.jpg"))[:6]:
        Folder("s3://flowers/reviewed-pile").write(path.name, path.read_bytes())
    out = "s3://flowers/reviewed-labels"
    flowerray.label(
        *("s3://flowers/reviewed-pile",),
        classifier=fast / "classifier",
        out=out,
        endpoint_url=s3,
    )
    with reviewed(out) as (server, address):
        (card, *_) = told(address, "api/next", {"who": "ann", "mode": "everything"})["cards"]
        assert ask(address, f"photo/{card['id']}")[1] == (sample.pile / card["name"]).read_bytes()
        told(address, "api/decide", {"who": "ann", "ids": [card["id"]], "label": "rose"})
        assert "store" in told(address, "api/pile")["teach"]
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
    assert corrections.kept(Folder.at(out)).select(["uri", "label"]).to_pylist() == [
        {"uri": card["uri"], "label": "rose"}
    ]


def test_others_are_let_in_where_that_is_asked_for(labels):
    with reviewed(labels, "--host", "0.0.0.0") as (_, address):
        here = re.sub(r"//[^:/]+", "//127.0.0.1", address)
        assert ask(here, "api/pile", Host="flowers.example:8421")[0] == 200
        assert ask(here, "api/pile", Origin="http://evil.example")[0] == 403
        assert ask(re.sub(r"/[^/]+/$", "/wrong/", here), "api/pile")[0] == 403


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_certificate_encrypts_it(labels, tmp_path):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ],
        check=True,
        capture_output=True,
    )
    options = ("--host", "0.0.0.0", "--certificate", str(certificate), "--key", str(key))
    with reviewed(labels, *options) as (_, address):
        here = re.sub(r"//[^:/]+", "//127.0.0.1", address)
        assert here.startswith("https://")
        with urllib3.PoolManager(ca_certs=str(certificate)) as trusting:
            assert trusting.request("GET", here + "api/pile", retries=False).status == 200
            origin = {"Origin": here.rsplit("/", 2)[0]}
            assert trusting.request("GET", here, headers=origin, retries=False).status == 200


def test_the_command_refuses_in_one_line(labels, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, code, about in (
            ((labels, "--port", port), 1, "another --port"),
            ((tmp_path / "nothing",), 1, "no labels in"),
            ((labels, "--certificate", "c.pem"), 2, "--key"),
            ((labels, "--port", "70000"), 2, "at most 65535"),
        ):
            script = [sys.executable, "-m", "flowerray", "review", *map(str, words), "--no-browser"]
            done = subprocess.run(script, capture_output=True, text=True, timeout=60)
            assert done.returncode == code and not done.stdout
            assert about in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_the_map_has_a_place_for_each_photograph(labels):
    session = Session(str(labels))
    session.make_map({})
    while (told := session.map_told({}))["state"] == "computing":
        pass
    usable = int(session.round.pile.usable.sum())
    assert told["state"] == "ready" and len(set(told["points"]["id"])) == usable
    assert len(set(zip(told["points"]["x"], told["points"]["y"], strict=True))) == usable
    card = session.cards({"who": "ann", "like": told["points"]["id"][0], "grid": True})["cards"][0]
    assert card["id"] == told["points"]["id"][0]


def test_an_answer_that_comes_twice_counts_once(labels):
    desk = Desk(Pile(str(labels)), 1)
    rows = np.flatnonzero(desk.pile.usable)[:2].tolist()
    for _ in range(2):
        desk.decide("ann", rows[:1], "rose", False, key="a")
    desk.decide("ann", rows[1:], "none", False, key="b")
    assert [desk.undo("ann", key="c") for _ in range(2)] == [rows[1:]] * 2
    assert list(desk.decided) == rows[:1]
    assert len(Folder.at(labels).names(corrections.ADDED)) == 3


def test_what_check_doubts_of_the_labelled_set_is_decided_too(labelled, labels, sample, tmp_path):
    (wrong, *_), label = sorted(sample.labelled.rglob("*.jpg")), "tulip"
    findings = tmp_path / "findings.csv"
    findings.write_text(
        "check,uri,other_uri,label,suggested_label,score,detail\n"
        f"small,{wrong},,rose,,3,\nmislabelled,{wrong},,{wrong.parent.name},{label},0.93,\n"
    )
    session = Session(str(labels), str(labelled[1]), findings=str(findings))
    listed = session.pile_told({})["photographs"]
    (card,) = session.cards({"who": "ann", "mode": "suspects"})["cards"]
    assert (card["uri"], card["label"]) == (str(wrong), wrong.parent.name)
    assert card["top"][0]["label"] == label and session.uri_of(card["id"]) == str(wrong)
    for mode in ("queue", "everything", "novel"):
        asked = {"who": "bob", "mode": mode, "number": 200, "grid": True}
        assert card["id"] not in {one["id"] for one in session.cards(asked)["cards"]}
    session.decide({"who": "ann", "ids": [card["id"]], "label": label})
    session.close()
    assert listed == len(rows_of(labels)) and flowerray.accept(labels).photographs == listed
    again = Session(str(labels), str(labelled[1]), findings=str(findings))
    assert again.cards({"who": "bob", "mode": "suspects"})["cards"] == []
    said = labels / "corrections.parquet"
    flowerray.train(labelled[1], out=tmp_path / "taught", corrections=said)
    evidence = pq.read_table(tmp_path / "taught" / "evidence.parquet").to_pylist()
    assert {row["label"] for row in evidence if row["uri"] == str(wrong)} == {label}
    modes = Session(str(labels)).pile_told({})["modes"]
    assert "--findings" in {mode["name"]: mode["why_not"] for mode in modes}["suspects"]


@pytest.mark.parametrize("content", ["", "uri,label\na.jpg,rose\n", "\0\1"])
def test_findings_that_are_none_are_refused(labels, tmp_path, content):
    (tmp_path / "findings.csv").write_text(content)
    with pytest.raises(FlowerrayError, match=r"findings\.csv"):
        Session(str(labels), findings=str(tmp_path / "findings.csv"))


def test_without_stored_features_it_says_what_is_missing(fast, sample, local_ray, tmp_path):
    flowerray.label(sample.pile, classifier=fast / "classifier", out=tmp_path / "labels")
    session = Session(str(tmp_path / "labels"), features=str(fast / "features"))
    told = session.pile_told({})
    modes = {mode["name"]: mode["why_not"] for mode in told["modes"]}
    assert "--keep-features" in modes["suggest"] and "--keep-features" in told["like"]
    assert "--min-precision" in modes["audit"] and modes["queue"] is None
    assert "--keep-features" in told["teach"]
    with pytest.raises(FlowerrayError, match="--keep-features"):
        session.cards({"who": "ann", "mode": "suggest"})
    assert session.make_map({})["state"] == "impossible"
