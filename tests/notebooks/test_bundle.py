"""What students get: `release.py --bundle FOLDER`."""

import re
import shutil
from pathlib import Path

import pytest

from common.support.files import InputError
from notebooks.execute import read_notebook
from notebooks.exercises import release
from notebooks.exercises.release import bundle, exercise_numbers, source_path, student_version
from tests.conftest import ROOT, assert_refused, run_command


@pytest.fixture(scope="module")
def students(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "new" / "students"
    bundle(folder, exercise_numbers())
    return folder


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_students_get_chapters_notebooks_checker_and_exercises(students):
    there = files(students)
    assert {"README.md", "LICENSE", "pyproject.toml", "requirements.txt", "common/gpt2.py", "ch_delift/greedy.py",
            "ch_instruct/evaluation/README.md", "common/assets/classroom/model.safetensors", "notebooks/execute.py",
            "notebooks/exercises/check.py", "notebooks/exercises/release.py"} <= there
    assert {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("0*.ipynb")} <= there
    for number in exercise_numbers():
        made = read_notebook(students / f"notebooks/exercises/release/{number}/{number}.ipynb")
        assert made == student_version(read_notebook(source_path(number)))


def test_students_get_no_solution_no_hidden_test_and_no_page_for_teachers(students):
    there = files(students)
    kept = r"(^|/)(source|wrong|right|tests|__pycache__)/|rubric|(questions|students)\.md"
    assert [name for name in there if re.search(kept, name)] == []
    solution = r"### BEGIN (?:SOLUTION|HIDDEN TESTS)\n(.*?)\n *### END"
    secrets = [text for number in exercise_numbers() for cell in read_notebook(source_path(number)).cells
               for text in re.findall(solution, cell.source, flags=re.S)]
    assert len(secrets) > 30
    given = [cell.source for name in there if name.startswith("notebooks/exercises/release/")
             for cell in read_notebook(students / name).cells]
    assert [secret for secret in secrets if any(secret in source for source in given)] == []
    assert (students / "notebooks" / "README.md").read_bytes() == (ROOT / "notebooks" / "questions.md").read_bytes()


def test_the_students_first_page_names_only_what_they_get(students):
    page = (students / "README.md").read_text(encoding="utf-8")
    assert page == (ROOT / "notebooks" / "students.md").read_text(encoding="utf-8") and "pytest" not in page
    named = re.findall(r"`((?:common|notebooks)/[^`.]*(?:\.md)?)`", page) + re.findall(r"python (\S+\.py)", page)
    assert len(named) >= 4 and [name for name in named if not (students / name).exists()] == []


def test_links_in_the_students_pages_lead_to_files(students):
    pages = [students / name for name in files(students) if name.endswith(".md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
             if not link.startswith("http")]
    assert len(links) > 30
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


@pytest.mark.slow
def test_the_students_project_runs(students):
    done = run_command(students / "ch_pretrain" / "generate.py", "--prompt", "The capital of Norway is", "--greedy",
                       "--max-new-tokens", "3", folder=students, PYTHONPATH=str(students))
    assert "Oslo" in done.stdout


def test_the_command_makes_it_once(in_process, tmp_path):
    made = in_process("notebooks/exercises/release.py", "02", "--bundle", "students")
    assert "students: chapters" in made.stdout and "exercises 02" in made.stdout
    assert [path.name for path in tmp_path.glob("cwd/students/notebooks/exercises/release/*")] == ["02"]
    before = files(tmp_path)
    again = in_process("notebooks/exercises/release.py", "--bundle", "students")
    assert_refused(again, "students is there already", "give the name of a new one")
    assert files(tmp_path) == before


@pytest.mark.parametrize(("name", "words"), [("file", "not an empty folder"), ("full", "not an empty folder")])
def test_what_is_there_stays(name, words, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(InputError, match=words):
        bundle(tmp_path / name, ["01"])
    assert files(tmp_path) == {"file", "full/file"}


def test_a_folder_inside_the_project_and_an_unknown_exercise_are_refused(tmp_path):
    with pytest.raises(InputError, match="lies inside the project"):
        bundle(ROOT / "notebooks" / "students", ["01"])
    with pytest.raises(InputError, match="no exercise '99'"):
        bundle(tmp_path / "new", ["99"])
    assert not (ROOT / "notebooks" / "students").exists() and list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    copy, copied = shutil.copyfile, []

    def copy_some(source, target):
        if len(copied) == 20:
            raise OSError(28, "No space left on device", str(target))
        copied.append(copy(source, target))

    (tmp_path / "students").mkdir()  # an empty folder may be given, and stays
    monkeypatch.setattr(shutil, "copyfile", copy_some)
    with pytest.raises(OSError, match="No space left"):
        bundle(tmp_path / "students", ["01"])
    assert len(copied) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["students"] and not any((tmp_path / "students").iterdir())


def test_without_source_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(release, "exercise_numbers", list)
    monkeypatch.setattr("sys.argv", ["release.py", "--bundle", str(tmp_path / "new")])
    with pytest.raises(InputError, match="needs the whole project, not what students get"):
        release.main()
    assert not (tmp_path / "new").exists()
