import sqlite3

import pytest
import sqlalchemy as sa

from tasks.errors import ConfigError, DataError
from tasks.inputs import sql
from tasks.inputs.rows import RowReader, read_rows
from tasks.inputs.sources import BATCH, open_log
from tasks.settings import DATASETS


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE log (id INTEGER, text TEXT, lang TEXT)")
        connection.executemany(
            "INSERT INTO log VALUES (?, ?, ?)",
            [(n, f"cat: 100% number {n}", "de") for n in range(BATCH + 10)],
        )
    connection.close()
    return path


def source_of(database, query):
    return f"sqlite:///{database}::" + query


def read(inputs):
    source = open_log(inputs)
    return list(read_rows(source.rows(), RowReader(DATASETS), source.description))


def test_a_query_is_read(database):
    rows = read(source_of(database, "SELECT id, text AS prompt, lang FROM log ORDER BY id;"))
    assert len(rows) == BATCH + 10
    assert rows[-1].prompt == f"cat: 100% number {BATCH + 9}"
    assert (rows[0].locale, rows[0].request_id) == ("de", "0")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT text AS prompt FROM log WHERE text LIKE '%: 100\\% number 7' ESCAPE '\\'",
        "with few as (select text as prompt from log where id = 7) select * from few",
        "  select text as prompt from log where id = 7 and ';' = ';'  ;  ",
    ],
)
def test_percent_signs_colons_and_semicolons_in_texts_are_fine(database, query):
    assert [row.prompt for row in read(source_of(database, query))] == ["cat: 100% number 7"]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM log",
        "UPDATE log SET text = ''",
        "SELECT 1 AS prompt; DELETE FROM log",
        "WITH gone AS (SELECT 1) DELETE FROM log",
        "WITH gone AS (SELECT 1) INSERT INTO log SELECT 1, 'x', 'y'",
        "PRAGMA writable_schema = ON",
        "ATTACH DATABASE 'other.db' AS other",
    ],
)
def test_nothing_can_be_written(database, query):
    before = database.read_bytes()
    with pytest.raises(ConfigError):
        read(source_of(database, query))
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == ["shop.db"]


def test_missing_file_is_not_made(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read(f"sqlite:///{tmp_path}/absent.db::SELECT 1 AS prompt")
    assert list(tmp_path.iterdir()) == []


def test_a_url_without_a_query_shows_the_syntax(database):
    with pytest.raises(ConfigError, match="URL::SELECT"):
        open_log(f"sqlite:///{database}")


def test_query_without_prompt_column_lists_the_columns(database):
    with pytest.raises(ConfigError, match="id, text"):
        read(source_of(database, "SELECT id, text FROM log"))


def test_bad_rows_have_their_number(database):
    query = """
        SELECT text AS prompt, CASE id WHEN 2 THEN 9 ELSE 512 END AS width, 512 AS height
        FROM log ORDER BY id
    """
    with pytest.raises(DataError, match="row 3, field 'width'"):
        read(source_of(database, query))


@pytest.mark.parametrize("query", ["SELECT prompt FROM absent", "SELECT FROM FROM"])
def test_failing_queries_say_why(database, query):
    with pytest.raises(ConfigError, match=r"absent|syntax"):
        read(source_of(database, query))


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "x.db").write_bytes(b"not a database" * 100)
    with pytest.raises(ConfigError, match="not a database"):
        read(source_of(tmp_path / "x.db", "SELECT prompt FROM log"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+absentdriver://reader:hunter2@db/shop?password=hunter2",
        "absent://reader:hunter2@db:5432/shop",
        "mysql+absent://reader:hunter2@[::1]/shop",
        "postgresql://reader:hunter2@db:port/shop",
    ],
)
@pytest.mark.parametrize("query", ["::SELECT prompt FROM log", "", "::DROP TABLE log"])
def test_passwords_are_never_shown(url, query):
    with pytest.raises(ConfigError) as caught:
        read(url + query)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_description_hides_password_and_parameters():
    source = open_log("sqlite://me:hunter2@/x.db?key=hunter2::SELECT 1 AS prompt")
    assert "hunter2" not in repr(source.description)
    assert source.description.endswith("::SELECT 1 AS prompt")


def test_an_ipv6_host_is_not_taken_for_the_query():
    source = open_log("postgresql://me:pw@[::1]:5432/shop::SELECT 'a::text' AS prompt")
    assert source.description == "postgresql://me:***@[::1]:5432/shop::SELECT 'a::text' AS prompt"


def test_reasons_of_the_driver_lose_the_secrets():
    url = sa.make_url("postgresql://me:hunter2@db/shop?sslpassword=sesame")
    error = sa.exc.OperationalError("SELECT 1", {}, Exception("login hunter2 with sesame failed"))
    assert sql._reason(error, url) == "login *** with *** failed"
