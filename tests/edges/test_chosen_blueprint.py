"""Which blueprint a call is about, which project file says so, and from where paths count."""

from pathlib import Path

import pytest

from is_db_bootstrap.blueprint.load import load_chosen, loadable_name
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import chosen_blueprint
from is_db_bootstrap.settings.choice import refuse_overlooked
from is_db_bootstrap.settings.project_file import FILE_NAME, find_project_file

VARIABLE = "IS_DB_BOOTSTRAP_BLUEPRINT"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The root of a checkout, in whose folder `deep/er` the call is made."""
    (tmp_path / "project" / ".git").mkdir(parents=True)
    (tmp_path / "project" / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project" / "deep" / "er")
    return tmp_path / "project"


def chosen(flag=None, environ=(), **given):
    return chosen_blueprint(flag, environ=dict(environ), **given)


# --- who names it


def test_the_first_source_names_the_blueprint(project):
    (project / FILE_NAME).write_text('blueprint = "of_file"\n')
    env_file = project / "vars"
    env_file.write_text(f"{VARIABLE}=of_env_file\n")
    both = {"env_file": env_file, "environ": {VARIABLE: "of_variable"}}
    found = [
        chosen("of_flag", **both),
        chosen(**both),
        chosen(env_file=env_file),
        chosen(),
    ]
    assert [each.name for each in found] == ["of_flag", "of_variable", "of_env_file", "of_file"]
    assert [each.source for each in found] == [
        "--blueprint",
        VARIABLE,
        f"{VARIABLE} in {env_file}",
        f"blueprint in {project / FILE_NAME}",
    ]
    assert not any(each.is_default for each in found)


def test_nobody_names_it_and_the_choice_says_so(project):
    choice = chosen()
    assert choice.is_default
    assert str(choice) == (f"novel_genesis (no --blueprint, no {VARIABLE}, no project file)")


def test_an_empty_variable_names_nothing(project):
    assert chosen(environ={VARIABLE: ""}).is_default


@pytest.mark.parametrize("environ", [{}, {VARIABLE: "redis://u:hunter22@h"}])
def test_an_address_in_the_place_of_a_name_is_not_repeated(project, environ):
    flag = None if environ else "redis://u:hunter22@h"
    with pytest.raises(ConfigurationError) as caught:
        chosen(flag, environ)
    assert "hunter22" not in str(caught.value)


# --- the project file


def test_the_nearest_project_file_counts(project):
    (project / FILE_NAME).write_text('blueprint = "far"\n')
    (project / "deep" / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert chosen().name == "far"
    (project / "deep" / "pyproject.toml").write_text('[tool.is-db-bootstrap]\nblueprint = "near"\n')
    assert chosen().name == "near"
    (project / "deep" / FILE_NAME).write_text('blueprint = "nearer"\n')
    assert chosen().name == "nearer"


@pytest.mark.parametrize("mark", [".git", ".hg", ".svn", ".jj"])
def test_nothing_above_a_checkout_is_read(project, mark):
    (project / FILE_NAME).write_text('blueprint = "above"\n')
    assert chosen().name == "above"
    (project / "deep" / mark).write_text("gitdir: elsewhere\n")
    assert chosen().is_default


def test_nothing_above_the_home_is_read(project, monkeypatch):
    (project / FILE_NAME).write_text('blueprint = "above"\n')
    monkeypatch.setenv("HOME", str(project / "deep"))
    assert chosen().is_default
    (project / "deep" / FILE_NAME).write_text('blueprint = "of_home"\n')
    assert chosen().name == "of_home"


def test_a_file_that_anybody_may_have_put_above_is_not_read(project):
    (project / FILE_NAME).write_text('blueprint = "anybodys"\n')
    project.chmod(0o1777)
    assert chosen().is_default
    assert find_project_file(project) == project / FILE_NAME  # there, it was asked for


def test_a_broken_project_file_above_is_named(project):
    (project / "pyproject.toml").write_text("[tool\n")
    with pytest.raises(ConfigurationError, match=f"{project}/pyproject.toml cannot be read"):
        chosen()


def test_a_call_in_a_folder_that_is_gone_has_no_project_file(project):
    (project / "deep" / "er").rmdir()
    assert chosen().is_default


# --- from where a path counts


def write_own(folder):
    folder.mkdir(exist_ok=True)
    (folder / "blueprint.py").write_text(
        "from is_db_bootstrap.blueprint import Blueprint\n"
        "BLUEPRINT = Blueprint('shop', 'for tests')\n"
    )


@pytest.mark.parametrize("written", ["shop", "./shop", "deep/../shop"])
def test_a_folder_in_a_file_is_relative_to_that_file(project, written):
    write_own(project / "shop")
    (project / FILE_NAME).write_text(f'blueprint = "{written}"\n')
    assert load_chosen(chosen()).name == "shop"
    assert Path(loadable_name(chosen())).is_absolute()


def test_a_folder_in_an_env_file_is_relative_to_that_file(project):
    write_own(project / "shop")
    (project / "vars").write_text(f"{VARIABLE}=shop\n")
    assert load_chosen(chosen(env_file=project / "vars")).name == "shop"


def test_a_folder_in_the_environment_is_relative_to_the_working_directory(project):
    write_own(project / "deep" / "shop")
    assert load_chosen(chosen(environ={VARIABLE: "../shop"})).name == "shop"


def test_a_module_in_a_file_is_looked_for_beside_that_file(project):
    write_own(project)
    (project / "blueprint.py").rename(project / "shop_of_this_file.py")
    (project / FILE_NAME).write_text('blueprint = "shop_of_this_file:BLUEPRINT"\n')
    assert load_chosen(chosen()).name == "shop"


def test_an_installed_name_in_a_file_wins_over_a_folder_beside_it(project):
    write_own(project / "helpdesk")
    (project / FILE_NAME).write_text('blueprint = "helpdesk"\n')
    assert loadable_name(chosen()) == "helpdesk"


def test_a_file_above_that_names_an_environment_is_the_blueprint(project):
    (project / "alembic.ini").write_text("[alembic]\nscript_location = migrations\n")
    (project / FILE_NAME).write_text('[postgres]\nalembic = "alembic.ini"\n')
    blueprint = load_chosen(chosen())
    assert blueprint.alembic.ini == project / "alembic.ini"


# --- a folder that is a blueprint


def test_the_default_is_not_taken_in_a_folder_that_is_a_blueprint(project):
    write_own(project / "deep" / "er")
    with pytest.raises(ConfigurationError, match=r"--blueprint \."):
        refuse_overlooked(chosen())
    refuse_overlooked(chosen("novel_genesis"))


def test_a_blueprint_of_flask_is_none_of_our_business(project):
    (project / "deep" / "er" / "blueprint.py").write_text("from flask import Blueprint\n")
    refuse_overlooked(chosen())
