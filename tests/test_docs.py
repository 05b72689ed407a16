"""The documents keep their word: every command runs or at least parses, every link leads somewhere.

A block of code is indented by four spaces or more after an empty line, or fenced. Without a
language, or as `sh`, it holds commands; as `text` it holds what commands print, or a drawing.
"""

import ast
import contextlib
import csv
import dataclasses
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import REPOSITORY
from onnx_models import laid_out, vision_transformer

from flowerray import cli
from flowerray.bases import spec as bases
from flowerray.heads import classifier
from flowerray.outputs.manifest import MANIFEST
from flowerray.outputs.schemas import LABELS, features_schema
from flowerray.parser import COMMANDS, parser
from flowerray.sources import answers

README = REPOSITORY / "README.md"
DOCUMENTS = {
    str(path.relative_to(REPOSITORY)): path
    for path in (README, *sorted((REPOSITORY / "docs").glob("*.md")))
}
FROM_NOTHING = ("README.md", "docs/quickstart.md", "docs/tutorial.md")  # what newcomers follow
MADE_BEFORE = (  # what the other documents take to be there
    "flowerray extract flower_photos --out features",
    "flowerray train features --out classifier",
    "flowerray label pile --classifier classifier --out labels --keep-features kept",
    "flowerray label pile --classifier classifier --out trusted --min-precision 0.97",
    "flowerray train features --out taught --corrections corrections.csv --pile-features kept",
)
NO_TEST_CAN = {  # programs that are not run here, and why
    "aws": "needs an account",
    "cd": "a test has a directory of its own",
    "curl": "needs a server",
    "docker": "needs its daemon",
    "duckdb": "is no package of flowerray's",
    "export": "would change what later tests find",
    "git": "needs a server",
    "helm": "needs a cluster",
    "kubectl": "needs a cluster",
    "sbatch": "needs a cluster",
    "source": "a test has an environment of its own",
    "ssh": "needs a server",
}
NOT_RUN = {  # commands that are parsed and not run, and why
    "flowerray audit labels2": "of so few photographs no label is sure enough to be accepted",
    "flowerray baseline ": "needs other weights, of half a gigabyte",
    "flowerray .*--address ": "needs a cluster",
    "flowerray .*--config job.yaml": "test_examples.py runs it with the document's own file",
    "flowerray review ": "serves until it is ended; test_review.py asks it",
    "flowerray train .*--recipe finetune": "takes a minute; test_trust.py does it",
    "flowerray weights fetch .*--(file|mirror) ": "needs that file, or that server",
    "flowerray .* hf://": "needs a network",
    "python -c .*keras.applications": "downloads from Keras",
    "python benchmarks/": "takes minutes to hours",
    "python3 -m venv": "takes minutes to fill",
    ".* (s3|gs)://": "needs a bucket",
}
# What an indented block may hold besides: Python, a Dockerfile, YAML, a drawing.
OTHER_CODE = re.compile(r"import |from |FROM |- |\w+:(\s|$)|.*[─▶│]")
SAID_BEFORE = ["pile", "--classifier", "classifier", "--out", "labels"]  # what `...` stands for


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The language, "" where none is given, and the content of each block of code."""
    lines, previous = iter([*text.splitlines(), ""]), ""
    indented: list[str] = []
    for line in lines:
        fence = re.fullmatch(r"\s*```(\w*)", line)
        if not indented and fence:
            content = []
            while not (line := next(lines)).strip().startswith("```"):
                content.append(line)
            yield fence[1], "\n".join(content)
        elif line.startswith("    ") and (indented or not previous.strip()):
            indented.append(line)
        elif indented:
            yield "", textwrap.dedent("\n".join(indented))
            indented = []
        previous = line


def commands(text: str) -> list[list[str]]:
    """The words of every command in the blocks of `text`, in order."""
    found = []
    for language, content in blocks(text):
        if language in ("", "sh", "bash") and not OTHER_CODE.match(content):
            for line in content.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                found += [words] if words else []
    return found


def in_text(text: str) -> list[list[str]]:
    """Commands in the midst of sentences; they may be cut short."""
    prose = re.sub(r"(?ms)^ *```.*?^ *```", "", text)
    found = re.findall(r"`((?:flowerray|python|make)\s[^`]+)`", prose)
    return [shlex.split(command.replace("...", "")) for command in found]


@pytest.fixture(scope="module")
def here(few, local_ray, tmp_path_factory):
    """A directory with photographs under the documents' names, and in `after/` what
    MADE_BEFORE leaves."""
    there = tmp_path_factory.mktemp("docs")
    here = there / "here"
    here.mkdir()
    for name in ("flower_photos", "flowers", "photographs"):
        shutil.copytree(few.labelled, here / name)
    shutil.copytree(few.pile, here / "pile")
    shutil.copy(few.truth, here / "truth.csv")
    laid_out(here / "dinov2-small", vision_transformer())
    with open(here / "corrections.csv", "w", newline="") as file:
        looked_at = sorted((here / "flower_photos").glob("*/*-0001.jpg"))
        rows = [(str(path), path.parent.name) for path in looked_at]
        with open(here / "truth.csv", newline="") as truths:
            first = next(csv.DictReader(truths))
        rows.append((str(here / "pile" / first["file"]), first["label"]))
        csv.writer(file).writerows([("uri", "label"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for line in MADE_BEFORE:
            follow(line.split(), patch)
    shutil.copytree(here, there / "after", symlinks=True)
    return here


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_commands_run_in_the_order_they_are_given(name, here, monkeypatch):
    shutil.rmtree(here)
    if name in FROM_NOTHING:
        here.mkdir()
    else:
        shutil.copytree(here.parent / "after", here, symlinks=True)
    monkeypatch.chdir(here)
    for words in commands(DOCUMENTS[name].read_text()):
        follow(words, monkeypatch)


def follow(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Run the command, or check as much of it as can be checked here."""
    program, *rest = words
    line = " ".join(words)
    reason = next((why for pattern, why in NOT_RUN.items() if re.match(pattern, line)), None)
    if program in NO_TEST_CAN:
        return
    if program == "flowerray":
        run_flowerray(rest, reason)
    elif program in ("python", "python3"):
        run_python(rest, reason, patch)
    elif program == "make":
        assert re.search(rf"^{rest[0]}:", (REPOSITORY / "Makefile").read_text(), re.M), line
    elif program == "pip":
        extras = re.findall(r"\[([\w,]+)\]", line)
        known = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
        assert set(",".join(extras).split(",")) <= {"", *known["optional-dependencies"]}, line
    elif program == "ray":
        run_ray(rest, patch)
    else:
        pytest.fail(f"nobody checks {line}: test_docs.py knows no {program}")


def run_flowerray(words: list[str], reason: str | None) -> None:
    if "..." in words:
        at = words.index("...")
        words = [*words[:at], *SAID_BEFORE, *words[at + 1 :]]
    words, into = (words[: words.index(">")], words[-1]) if ">" in words else (words, None)
    if reason is not None:
        if "--config" not in words:  # whose file has what the parser would miss
            parser().parse_args(words)
        return
    with contextlib.ExitStack() as stack:
        if into is not None:
            file = Path(into if into[0] != "~" else os.devnull)
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(file.open("w"))))
        if words[0] == "sample" and "--per-class" not in words:
            words = [*words, "--per-class", "4"]  # of 40, for time
        code = cli.main([at_hand(word) for word in words])
    for table in TO_FILL_IN:
        fill_in(Path(table))
    # What `check --strict` finds is no failure of the command.
    assert code == 0 or (code == 1 and "--strict" in words), " ".join(words)


TO_FILL_IN = {"look.csv": 3, "next.csv": 3, "audit.csv": 0}  # so many rows of it, 0 for all


def fill_in(table: Path) -> None:
    """Answer what a table asks, as people do between two commands."""
    if table.exists():
        most = TO_FILL_IN[table.name]
        table.write_text(re.sub(r",$", ",rose", table.read_text(), count=most, flags=re.M))


def at_hand(word: str) -> str:
    """The storage that all nodes of the documents' clusters see is the test's directory."""
    return re.sub(r"^/(data|mnt/flowerray)\b", str(Path.cwd()), word)


def run_python(words: list[str], reason: str | None, patch: pytest.MonkeyPatch) -> None:
    if words[0] == "-c":
        ast.parse(words[1])
        if reason is None:
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
    elif words[0].startswith(("jobs/", "docs/")) and "..." not in words[0] and reason is None:
        patch.setattr(sys, "argv", [at_hand(word) for word in words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(REPOSITORY / words[0]), run_name="__main__")
        assert not ended.value.code, " ".join(words)
    elif words[0] != "-m":
        assert "..." in words[0] or (REPOSITORY / words[0]).is_file(), " ".join(words)


def run_ray(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Ray's own parser has to take its part; a job is run without Ray's part in it."""
    from ray.scripts.scripts import cli as ray_cli

    job = words[words.index("--") + 1 :] if "--" in words else []
    group, rest = ray_cli, words[: words.index("--")] if "--" in words else words
    while hasattr(group, "commands"):
        group, rest = group.commands[rest[0]], rest[1:]
    group.make_context(group.name, [*rest, *(["--", *job] if job else [])])
    if job:
        follow(job, patch)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_in_sentences_are_commands(name):
    for words in in_text(DOCUMENTS[name].read_text()):
        program, *rest = words
        if program == "flowerray" and rest[0] != "COMMAND":
            command = COMMANDS[rest[0]]
            names = {field.name.replace("_", "-") for field in dataclasses.fields(command.settings)}
            options = {word[2:] for word in rest if word.startswith("--")}
            assert options <= names | {"json", "help", "config"}, " ".join(words)
        elif program == "make":
            assert re.search(rf"^{rest[0]}:", (REPOSITORY / "Makefile").read_text(), re.M), words
        elif program == "python" and "/" in rest[0]:
            assert (REPOSITORY / rest[0]).is_file(), " ".join(words)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_other_code_is_of_its_language(name):
    parsers = {"python": ast.parse, "json": json.loads, "toml": tomllib.loads}
    parsers["yaml"] = lambda content: list(yaml.safe_load_all(content))
    for language, content in blocks(DOCUMENTS[name].read_text()):
        if language not in ("", "sh", "bash", "text"):
            parsers[language](content)


def anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name):
    document = DOCUMENTS[name]
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match("https?:", target):
            continue
        file, _, anchor = target.partition("#")
        path = document.parent / file if file else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_readme_leads_to_every_document():
    linked = set(re.findall(r"\]\((docs/\w+\.md)", README.read_text()))
    assert linked >= set(DOCUMENTS) - {"README.md"}


def documented(heading: str) -> dict[str, list[str]]:
    """The table below `heading` in docs/formats.md: the first column's names, and the others."""
    text = DOCUMENTS["docs/formats.md"].read_text()
    section = re.split(rf"^#+ {re.escape(heading)}$", text, flags=re.M)[1]
    section = re.split(r"^#", section, flags=re.M)[0]
    rows = re.findall(r"^\| `(.+?)` \| (.*) \|$", section, re.M)
    return {name: rest.split(" | ") for name, rest in rows}


def is_schema(heading: str, schema: pa.Schema) -> None:
    columns = {name: type.strip("`") for name, (type, _) in documented(heading).items()}
    # What a list holds is an item in memory and an element in a Parquet file.
    found = {field.name: str(field.type).replace("<element: ", "<item: ") for field in schema}
    assert columns == found, heading


def has_keys(heading: str, found: set[str]) -> None:
    """Those that only some files have say so by the word."""
    keys = {name: " ".join(rest) for name, rest in documented(heading).items()}
    always = {name for name, meaning in keys.items() if "only " not in meaning}
    assert always <= found <= set(keys), heading


def test_formats_are_as_in_the_code():
    is_schema("Manifest", MANIFEST)
    is_schema("Feature shards", features_schema(512, mirrored=True))
    is_schema("Label shards", LABELS)
    is_schema("evidence.parquet", classifier.EVIDENCE)
    is_schema("corrections.parquet", answers.ANSWERS)
    has_keys("Base spec", {field.name for field in dataclasses.fields(bases.BaseSpec)})


def test_formats_are_as_in_the_files(here):
    made = here.parent / "after"
    for name, heading in (("features", "Feature shards"), ("trusted", "Label shards")):
        has_keys("run.json", set(json.loads((made / name / "run.json").read_bytes())))
        for file in (made / name / "manifest").iterdir():
            is_schema("Manifest", pq.read_schema(file))
        for file in (made / name / "shards").iterdir():
            schema = pq.read_schema(file)
            has_keys(heading, set(schema.names))
            assert b"flowerray" in schema.metadata
    is_schema("review.parquet", pq.read_schema(made / "trusted" / "review.parquet"))
    has_keys("Classifier", {file.name for file in (made / "classifier").iterdir()})
    about = json.loads((made / "classifier" / "classifier.json").read_bytes())
    has_keys("classifier.json", set(about))


def test_commands_md_is_what_help_prints(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    written = runpy.run_path(str(REPOSITORY / "docs" / "commands.py"))["document"]()
    # Pythons break usage lines differently.
    said = DOCUMENTS["docs/commands.md"].read_text()
    assert written.split() == said.split(), "run `make docs`"


def test_no_file_has_marks_of_a_merge():
    found = subprocess.run(
        ["git", "grep", "-lE", "^(<<<<<<<|>>>>>>>)( |$)"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if found.returncode > 1:
        pytest.skip(f"no git checkout: {found.stderr}")
    assert not found.stdout
